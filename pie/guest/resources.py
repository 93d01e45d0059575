"""The resource handles of one guest: host objects behind numbers."""

from __future__ import annotations

from typing import Any

import attrs

from pie.errors import LimitExceeded


@attrs.define(eq=False)
class Handles:
    """A table from representation numbers to host objects, in order of creation.

    A guest drops a handle on its own stack, deep inside wasmtime, where nothing may wait or
    fail. So a destructor only moves the object to a release list; `release` closes it later,
    on the driver's stack.
    """

    context: int
    limit: int
    table: dict[int, Any] = attrs.field(factory=dict)
    given: list[Any] = attrs.field(factory=list)
    """What the running host call was given: ours to close until that call has succeeded."""
    dropped: list[Any] = attrs.field(factory=list)
    """What the guest has let go and `release` is to close."""
    _last: int = 0

    def add(self, value: object) -> int:
        """The representation number of a new handle to `value`."""
        if len(self.table) >= self.limit:
            raise LimitExceeded(
                f"this guest may have at most {self.limit} live resource handles "
                "(limits.max_handles)"
            )
        self._last = rep = self._last + 1
        self.table[rep] = value
        return rep

    def give(self, rep: int) -> Any:
        """The guest passes its handle to a host function, which is to own the object."""
        value = self.table.pop(rep)
        self.given.append(value)
        return value

    def release(self) -> None:
        """Close what the guest has dropped, in that order."""
        if self.dropped:
            dropped, self.dropped = self.dropped, []
            _close_each(dropped)

    def release_all(self) -> None:
        """Close everything, the newest first; one that fails does not keep the others."""
        left = [*self.dropped, *self.given, *reversed(self.table.values())]
        self.dropped.clear()
        self.given.clear()
        self.table.clear()
        _close_each(left)


def _close_each(values: list[Any]) -> None:
    for index, value in enumerate(values):
        if hasattr(value, "close"):
            try:
                value.close()
            except BaseException:
                _close_each(values[index + 1 :])
                raise
