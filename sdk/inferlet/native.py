"""What hosts an inferlet that runs as a coroutine of the engine's process, without wasm.

The engine sets `HOST` in the context of the inferlet's task before it calls `main`. Tests may set
it to a scripted object.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Host(Protocol):
    """The other side of the library's host calls."""

    async def call(self, interface: str, function: str, /, *arguments: Any) -> Any:
        """Call a host function by its component-model name.

        For example `("inferlet:core/forward", "[method]forward-pass.execute", handle)`. Handles
        are opaque objects; `list<u8>` is bytes, an enum is its name.
        """

    async def poll(self, pollables: Sequence[Any], /) -> list[int]:
        """Wait until a pollable is ready; the indices of all that are."""

    def drop(self, handle: Any, /) -> None:
        """Release a handle now rather than at the end of the inferlet."""

    async def write(self, stream: str, data: bytes, /) -> None:
        """Write to "stdout" or "stderr" of the inferlet."""

    def watch(self, strand: Coroutine[Any, Any, T], /) -> Coroutine[Any, Any, T]:
        """`strand`, to be awaited in a task of its own, known to the host from now on."""


HOST: ContextVar[Host] = ContextVar("HOST")
"""The host of the running inferlet."""
