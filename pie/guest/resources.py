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
    _last: int = 0
    _dropped: list[Any] = attrs.field(factory=list)

    def add(self, value: object) -> int:
        """The representation number of a new handle to `value`."""
        if len(self.table) >= self.limit:
            raise LimitExceeded(
                f"this guest may have at most {self.limit} live resource handles "
                "(limits.max_handles)"
            )
        self._last += 1
        self.table[self._last] = value
        return self._last

    def give(self, rep: int) -> Any:
        """The guest passes its handle to a host function, which is to own the object."""
        value = self.table.pop(rep)
        self.given.append(value)
        return value

    def drop(self, rep: int) -> None:
        """The guest has dropped its handle."""
        value = self.table.pop(rep)
        if hasattr(value, "close"):
            self._dropped.append(value)

    def release(self) -> None:
        """Close what the guest has dropped, in that order."""
        if self._dropped:
            dropped, self._dropped = self._dropped, []
            _close_each(dropped)

    def release_all(self) -> None:
        """Close everything, the newest first; one that fails does not keep the others."""
        left = [*self._dropped, *self.given, *reversed(self.table.values())]
        self._dropped.clear()
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
