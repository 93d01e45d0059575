"""How host functions are declared: once, for wasm guests and native guests alike.

An interface module makes one `HostInterface` and registers plain Python functions under their
WIT names. Each gets the guest's instance first, then the arguments as Python values:

    integers, floats, bool, str, list, tuple, None or the value for option, bytes for list<u8>,
    dict by WIT field name for records, set of names for flags, (name, value) for variants, str
    for enums, Ok / Err for result, and the host's own object for resource handles (own and
    borrow alike).

A function that never waits returns its value. One declared with `suspends=True` may also return
a coroutine, which the guest's task awaits, or `Wait`, the cheap way to wait for pollables.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

import attrs

from pie.signals import Pollable

T = TypeVar("T")
E = TypeVar("E")
F = TypeVar("F", bound=Callable[..., Any])


@attrs.frozen
class Ok(Generic[T]):
    """The good case of a WIT `result`."""

    value: T = None  # type: ignore[assignment]  # result<_, E> has no value


@attrs.frozen
class Err(Generic[E]):
    """The bad case of a WIT `result`."""

    value: E = None  # type: ignore[assignment]  # result<T> has no error value


@attrs.define(eq=False)
class Wait:
    """Suspend the guest until one of `pollables` is ready; `result` then makes the value."""

    pollables: Sequence[Pollable]
    result: Callable[[], Any] | None = None


Suspension: TypeAlias = Wait | Coroutine[Any, Any, Any]


@attrs.frozen
class HostFunction:
    """One function of a host interface: `implementation(instance, *arguments)`."""

    name: str
    implementation: Callable[..., Any]
    suspends: bool


@attrs.define(eq=False)
class HostInterface:
    """A WIT interface that the host offers, named without a version.

    Function names are those of the component model: `name`, `[constructor]resource`,
    `[method]resource.name`, `[static]resource.name`.
    """

    name: str
    functions: dict[str, HostFunction] = attrs.field(factory=dict)

    def function(self, name: str, *, suspends: bool = False) -> Callable[[F], F]:
        """Register the decorated function under its WIT name."""

        def register(implementation: F) -> F:
            assert name not in self.functions, f"{self.name}#{name} is declared twice"
            self.functions[name] = HostFunction(name, implementation, suspends)
            return implementation

        return register

    def include(self, part: HostInterface) -> None:
        """Offer the functions of `part` as well, which is declared in a module of its own."""
        assert part.name == self.name, f"{part.name} is no part of {self.name}"
        twice = self.functions.keys() & part.functions.keys()
        assert not twice, f"{self.name}: {sorted(twice)} are declared twice"
        self.functions.update(part.functions)
