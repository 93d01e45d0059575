"""Backend for inferlets that run in the engine's process: host calls are awaited through `HOST`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import trio

from .native import HOST


def bind(interface: str, function: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    """A host function, by its component-model name."""

    async def call(*arguments: Any) -> Any:
        return await HOST.get().call(interface, function, *arguments)

    return call


def priority(name: str) -> Any:
    """A value of the enum `priority`."""
    return name


def alone() -> bool:
    """Whether a host call that waits keeps no other strand from going on: it never does, here."""
    return True


async def wait(pollable: Any) -> None:
    """Suspend this strand until `pollable` is ready."""
    await HOST.get().poll([pollable])


def drop(handle: Any) -> None:
    """Release a host handle."""
    HOST.get().drop(handle)


async def write(stream: str, text: str) -> None:
    """Write to a standard stream and flush it."""
    await HOST.get().write(stream, text.encode())


async def sleep(seconds: float) -> None:
    """Suspend this strand."""
    await trio.sleep(seconds)


async def gather(*strands: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run coroutines concurrently; their results in order. The first failure cancels the rest."""
    results: list[Any] = [None] * len(strands)

    async def run(index: int, strand: Coroutine[Any, Any, Any]) -> None:
        results[index] = await strand

    host = HOST.get()
    try:
        async with trio.open_nursery() as nursery:
            for index, strand in enumerate(strands):
                nursery.start_soon(run, index, host.watch(strand))
    except BaseExceptionGroup as group:
        failures = group.split(trio.Cancelled)[1]
        if failures is None:
            raise
        raise _first(failures) from None
    return results


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
