"""Backend for components: the bindings that componentize-py generates for the world."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import Any

from wit_world.imports import common, monotonic_clock, poll

from ._strands import Loop, suspend

_LOOP = Loop(poll.Pollable.block, poll.poll)


def bind(interface: str, function: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    """A host function, by its component-model name; it never suspends the strand."""
    target = _find(interface, function)

    async def call(*arguments: Any) -> Any:
        return target(*arguments)

    return call


def _find(interface: str, function: str) -> Callable[..., Any]:
    module = import_module(f"wit_world.imports.{_snake(interface.rpartition('/')[2])}")
    kind, _, name = function.rpartition("]")
    resource, _, method = name.rpartition(".")
    if kind == "[constructor":
        return getattr(module, _camel(name))  # type: ignore[no-any-return]
    owner = getattr(module, _camel(resource)) if resource else module
    return getattr(owner, _snake(method))  # type: ignore[no-any-return]


def _snake(name: str) -> str:
    return name.replace("-", "_")


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))


def priority(name: str) -> Any:
    """A value of the enum `priority`."""
    return common.Priority[name.upper()]


def alone() -> bool:
    """Whether a host call that waits keeps no other strand from going on."""
    return _LOOP.alone


async def wait(pollable: Any) -> None:
    """Suspend this strand until `pollable` is ready."""
    if _LOOP.alone:
        pollable.block()  # there is nothing else to do, and the way through the loop is long
    else:
        await suspend(pollable)


def drop(handle: Any) -> None:
    """Release a host handle."""
    handle.__exit__(None, None, None)


async def write(stream: str, text: str) -> None:
    """Write to a standard stream and flush it."""
    file = sys.stdout if stream == "stdout" else sys.stderr
    # Unbuffered, as it is here, it takes as much as the host takes at once and no more.
    data = memoryview(text.encode(errors=file.errors or "strict"))
    while data:
        data = data[file.buffer.write(data) :]
    file.flush()


async def sleep(seconds: float) -> None:
    """Suspend this strand."""
    pollable = monotonic_clock.subscribe_duration(round(max(seconds, 0.0) * 1e9))
    await wait(pollable)
    drop(pollable)


async def gather(*strands: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run coroutines concurrently; their results in order. The first failure cancels the rest."""
    results: list[Any] = await suspend(list(strands))
    return results if strands else []


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Drive `main` and all that it gathers to the end."""
    return _LOOP.run(main)
