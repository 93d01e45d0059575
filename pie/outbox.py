"""What an instance has for its client: bounded, and slow only for that instance (contract X4)."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import attrs

from .probes import sometimes
from .signals import Signal, wait_any

T = TypeVar("T")

CAPACITY = 256
"""Items that wait for a slow client before its instance does: a screenful of streamed tokens."""


@attrs.define(eq=False)
class Outbox(Generic[T]):
    """A bounded line of items with one reader. The last item needs no room, so that an end is
    never held up; iteration stops after it.
    """

    capacity: int = CAPACITY
    _items: deque[T] = attrs.field(factory=deque)
    _filled: Signal = attrs.field(factory=Signal)
    _room: Signal = attrs.field(factory=lambda: Signal(ready=True))
    _closed: bool = False

    def put_nowait(self, item: T) -> bool:
        """Add `item` if there is room; says whether there was."""
        if not self._room.ready():
            return False
        self._add(item)
        return True

    async def put(self, item: T) -> None:
        """Add `item`, waiting for room."""
        while not self.put_nowait(item):
            sometimes("an outbox is full")
            await wait_any((self._room,))

    def finish(self, last: T) -> None:
        """Add the last item, room or not."""
        self._add(last)
        self._closed = True

    def _add(self, item: T) -> None:
        assert not self._closed, "the outbox has had its last item"
        self._items.append(item)
        self._filled.set()
        if len(self._items) >= self.capacity:
            self._room.clear()

    def __aiter__(self) -> Outbox[T]:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._closed:
                raise StopAsyncIteration
            self._filled.clear()
            await wait_any((self._filled,))
        item = self._items.popleft()
        if len(self._items) < self.capacity:
            self._room.set()
        return item
