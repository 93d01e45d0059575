"""Running an inferlet as a coroutine of the engine's own process, for debugging and tests.

The guest library calls the same host interfaces as a component would, through a `NativeHost`.
"""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, TypeVar

import attrs
import trio
from inferlet.entry import Main, outcome
from inferlet.native import HOST

from pie.errors import GuestError, LimitExceeded
from pie.signals import Pollable

from .conformity import MISMATCH, check_of
from .host import Err, HostFunction, HostInterface, Ok, Wait
from .instance import Instance
from .interfaces._signatures import SIGNATURES, Signature
from .strands import Strands

T = TypeVar("T")


async def run_native(
    main: Main, instance: Instance, interfaces: Iterable[HostInterface]
) -> Ok[None] | Err[str]:
    """Run `main` as the guest of `instance` and release all it holds, whatever happens.

    Like a component's `run`: Err is the inferlet's own failure. What a host function raised comes
    out as it is, even if the guest caught it, since a component could not have.
    """
    host = NativeHost(instance, interfaces)
    token = HOST.set(host)
    try:
        error = await host.watch(_outcome(main))
        host.check()
        return Ok() if error is None else Err(error)
    finally:
        HOST.reset(token)
        host.close()


async def _outcome(main: Main) -> str | None:
    """What became of `main`, if it ended the process or failed while it was being ended, too.

    Neither may reach the tasks of others: a component's exit ends that guest alone as well.
    """
    try:
        return await outcome(main)
    except SystemExit as end:
        _check_exit(end)
    except BaseExceptionGroup as group:
        cancelled, rest = group.split(trio.Cancelled)
        if cancelled is not None:
            raise cancelled from rest
        exits = group.split(SystemExit)[0]
        if exits is None:
            raise
        _check_exit(exits)
    return None


def _check_exit(end: SystemExit | BaseExceptionGroup[SystemExit]) -> None:
    while isinstance(end, BaseExceptionGroup):
        end = end.exceptions[0]
    if end.code:
        raise GuestError(f"the program ended itself with exit code {end.code}")


@attrs.define(eq=False)
class _Handle:
    """A host object that the guest holds, once or more."""

    kind: str
    value: Any
    count: int = 0


class NativeHost:
    """The host of one native guest: an `inferlet.native.Host`."""

    def __init__(self, instance: Instance, interfaces: Iterable[HostInterface]) -> None:
        self._instance = instance
        self._functions = {
            (interface.name, name): (function, SIGNATURES[interface.name][name])
            for interface in interfaces
            if interface.name in SIGNATURES
            for name, function in interface.functions.items()
        }
        self._handles: dict[int, _Handle] = {}
        self._strands = Strands(instance.mover)
        self._fault: Exception | None = None

    async def call(self, interface: str, function: str, /, *arguments: Any) -> Any:
        """Call a host function; what it raises ends the guest, as a trap would."""
        self.check()
        try:
            host_function, signature = self._find(interface, function)
            self._take(function, signature, arguments)
            value = host_function.implementation(self._instance, *arguments)
            if host_function.suspends:
                value = await self._settle(value)
            self._give(signature, value)
        except Exception as error:
            self._fault = error
            raise
        return value

    async def poll(self, pollables: Sequence[Pollable], /) -> list[int]:
        """Wait until one is ready; the indices of all that are (contract X9)."""
        self.check()
        if not pollables:
            self._fault = GuestError("poll: the list of pollables is empty (X9)")
            raise self._fault
        await self._strands.wait(pollables)
        return [index for index, pollable in enumerate(pollables) if pollable.ready()]

    def drop(self, handle: Any, /) -> None:
        """The guest lets go of a handle; pollables own nothing and may be dropped freely."""
        held = self._handles.get(id(handle))
        if held is not None:
            self._forget(held)
            _close(handle)

    async def write(self, stream: str, data: bytes, /) -> None:
        """Write to the instance's stdout or stderr."""
        self.check()
        await self._instance.write(stream, data)

    def watch(self, strand: Coroutine[Any, Any, T], /) -> Coroutine[Any, Any, T]:
        """`strand`, counted as moving from now on whenever it runs; await it in its own task."""
        return self._strands.watch(strand)

    def check(self) -> None:
        """Raise what a host function has raised."""
        if self._fault is not None:
            raise self._fault

    def close(self) -> None:
        """Release what the guest still holds, the newest first."""
        self._instance.mover.stop()
        held = list(self._handles.values())
        self._handles.clear()
        for handle in reversed(held):
            _close(handle.value)

    def _find(self, interface: str, function: str) -> tuple[HostFunction, Signature]:
        found = self._functions.get((interface, function))
        if found is None:
            raise GuestError(f"this engine has no host function {interface}#{function}")
        return found

    def _take(self, function: str, signature: Signature, arguments: tuple[Any, ...]) -> None:
        """Check the arguments as a component's are; owned handles pass to the host."""
        if len(arguments) != len(signature.parameters):
            raise GuestError(
                f"{function} takes {len(signature.parameters)} arguments, not {len(arguments)}"
            )
        for (name, kind), value in zip(signature.parameters, arguments, strict=True):
            wanted = kind.removeprefix("borrow<").removesuffix(">")
            if wanted not in _RESOURCES:
                _check_value(function, name, kind, value)
                continue
            held = self._handles.get(id(value))
            if held is None or held.kind != wanted:
                raise GuestError(
                    f"{function}: {name} is not a live handle of a {wanted}: {value!r}"
                )
            if wanted == kind:
                self._forget(held)

    def _give(self, signature: Signature, value: Any) -> None:
        kind = signature.result.removeprefix("option<").removesuffix(">")
        if value is None or kind not in _RESOURCES:
            return
        if len(self._handles) >= self._instance.limits.max_handles:
            _close(value)
            raise LimitExceeded(
                f"this guest may have at most {self._instance.limits.max_handles} live resource "
                "handles (limits.max_handles)"
            )
        self._handles.setdefault(id(value), _Handle(kind, value)).count += 1

    def _forget(self, held: _Handle) -> None:
        held.count -= 1
        if not held.count:
            del self._handles[id(held.value)]

    async def _settle(self, value: Any) -> Any:
        """The value of a host function that may have suspended."""
        if isinstance(value, Wait):
            await self._strands.wait(value.pollables)
            return value.result and value.result()
        return await value if inspect.iscoroutine(value) else value


_RESOURCES = frozenset(
    name[len("[method]") :].partition(".")[0]
    for functions in SIGNATURES.values()
    for name in functions
    if name.startswith("[method]")
) - {"pollable"}


def _check_value(function: str, name: str, kind: str, value: Any) -> None:
    check = check_of(kind)
    assert check is not None, f"{function}: values of type {kind} cannot be passed natively"
    try:
        check(value)
    except MISMATCH:
        raise GuestError(f"{function}: {name} is not a {kind}: {reprlib.repr(value)}") from None


def _close(value: Any) -> None:
    if hasattr(value, "close"):
        value.close()
