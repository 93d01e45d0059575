"""Records every host call that guests make, and can let a host function do nothing."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs

from pie.errors import PieError
from pie.guest.host import HostFunction, HostInterface, Wait
from pie.guest.interfaces import ALL
from pie.guest.interfaces._signatures import SIGNATURES
from pie.guest.wasi import interfaces_of_wasi


@attrs.define
class Recorder:
    """What guests called, and how it went: "ok" or "trap" for (interface, function)."""

    calls: set[tuple[str, str, str]] = attrs.field(factory=set)
    silenced: tuple[str, str] | None = None
    """A function that does nothing for now, for the sweep that wants to see it noticed."""

    def wrap(self, interface: HostInterface) -> HostInterface:
        """`interface` with each function recorded."""
        functions = {
            name: attrs.evolve(function, implementation=self._recorded(interface.name, function))
            for name, function in interface.functions.items()
        }
        return HostInterface(interface.name, functions)

    def _recorded(self, interface: str, function: HostFunction) -> Callable[..., Any]:
        key = (interface, function.name)

        @functools.wraps(function.implementation)
        def call(*arguments: Any) -> Any:
            if self.silenced == key:
                return nothing_of(*key)
            with self._noting_a_trap(key):
                value = function.implementation(*arguments)
            if isinstance(value, Wait):
                return Wait(value.pollables, functools.partial(self._settled, key, value))
            if inspect.iscoroutine(value):
                return self._awaited(key, value)
            self.calls.add((*key, "ok"))
            return value

        return call

    def _settled(self, key: tuple[str, str], wait: Wait) -> Any:
        with self._noting_a_trap(key):
            value = wait.result and wait.result()
        self.calls.add((*key, "ok"))
        return value

    async def _awaited(self, key: tuple[str, str], answer: Awaitable[Any]) -> Any:
        with self._noting_a_trap(key):
            value = await answer
        self.calls.add((*key, "ok"))
        return value

    @contextmanager
    def _noting_a_trap(self, key: tuple[str, str]) -> Iterator[None]:
        try:
            yield
        except PieError:
            self.calls.add((*key, "trap"))
            raise


RECORDER = Recorder()
WASI = {
    "wasi:io/poll": {
        "[method]pollable.ready": "bool",
        "[method]pollable.block": "",
        "poll": "list<u32>",
    },
    "wasi:clocks/monotonic-clock": {"now": "u64", "subscribe-duration": "pollable"},
}
"""The functions of WASI that are in `wit/`, and what they return."""
RESULTS = {
    interface: {name: signature.result for name, signature in functions.items()}
    for interface, functions in SIGNATURES.items()
} | WASI
"""The type that each function of `wit/` returns, as WIT text."""
INTERFACES = [
    RECORDER.wrap(interface)
    for interface in (*ALL, *interfaces_of_wasi(simulated=True))
    if interface.name in RESULTS
]


def short(function: str) -> str:
    """A function's name as cases write it."""
    return function.removeprefix("[method]").removeprefix("[constructor]")


SHORT = {
    short(name): (interface, name)
    for interface, functions in SIGNATURES.items()
    for name in functions
}


_NEUTRAL = {"string": "", "bool": False, "list<u8>": b""}


def nothing_of(interface: str, function: str) -> Any:
    """What a function that does nothing returns: an empty value of its type."""
    kind = RESULTS[interface][function]
    if kind == "" or kind.startswith("option<"):
        return None
    if kind == "pollable":
        return Ready()
    if kind == "tuple<list<u32>, bool>":
        return [], True
    if kind.startswith("tuple<"):
        return [], []
    if kind in _NEUTRAL:
        return _NEUTRAL[kind]
    if kind.startswith("list<"):
        return []
    return 0 if kind in ("u32", "u64") else Hollow()


class Hollow:
    """A resource that nothing can be done with."""


class Ready:
    """A pollable that has nothing to wait for."""

    def ready(self) -> bool:
        return True
