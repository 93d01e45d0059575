"""What an instance has for its client: bounded, and slow only for that instance (contract X4)."""

from __future__ import annotations

from collections import deque
from typing import Generic, Protocol, TypeVar

import attrs

from .probes import sometimes
from .signals import Signal, wait_any

CAPACITY = 256
"""Items that wait for a slow client before its instance does: a screenful of streamed tokens."""
CAPACITY_BYTES = 1 << 20
"""Bytes that do. An item is taken while there are fewer, so a large one may go beyond."""
KEPT_ITEMS = 16_384
"""Items kept while nobody is attached, however small: each costs some 100 bytes of memory beside
its contents."""
AFTER_THE_LAST = "the outbox has had its last item"


class Sized(Protocol):
    """What can be in an outbox."""

    @property
    def size(self) -> int:
        """Bytes of contents."""
        ...


T = TypeVar("T", bound=Sized)


@attrs.frozen
class Dropped:
    """What a client has missed while it was away."""

    items: int
    bytes: int


@attrs.define(eq=False)
class Outbox(Generic[T]):
    """A bounded line of items with one reader at a time, who may go while another comes later.

    *Attached*, as it is at first, it makes its writer wait when it is full. *Detached*, nobody
    waits: the newest items are kept. The last item needs no room, so that an end is never held
    up, and is never dropped; iteration stops after it.
    """

    capacity: int = CAPACITY
    capacity_bytes: int = CAPACITY_BYTES
    _items: deque[T] = attrs.field(factory=deque, init=False)
    _bytes: int = attrs.field(default=0, init=False)
    _filled: Signal = attrs.field(factory=Signal, init=False)
    _room: Signal = attrs.field(factory=lambda: Signal(ready=True), init=False)
    """Not ready: it is attached and full."""
    ended: Signal = attrs.field(factory=Signal, init=False)
    """Ready once it has had its last item."""
    _closed: bool = attrs.field(default=False, init=False)
    """It has had its last item, which is the hindmost as long as it is there."""
    _kept: int | None = attrs.field(default=None, init=False)
    """Bytes that it keeps, if it is detached."""
    _dropped_items: int = attrs.field(default=0, init=False)
    _dropped_bytes: int = attrs.field(default=0, init=False)

    @property
    def exhausted(self) -> bool:
        """Whether its last item has been read."""
        return self._closed and not self._items

    # Writing

    def put_nowait(self, item: T) -> bool:
        """Add `item` if there is room; says whether there was."""
        if not self._room.ready():
            return False
        assert not self._closed, AFTER_THE_LAST
        self._add(item)
        return True

    async def put(self, item: T) -> None:
        """Add `item`, waiting for room."""
        while not self.put_nowait(item):
            sometimes("an outbox is full")
            await wait_any((self._room,))

    def finish(self, last: T) -> None:
        """Add the last item, room or not."""
        assert not self._closed, AFTER_THE_LAST
        self._closed = True
        self._add(last)
        self.ended.set()

    def _add(self, item: T) -> None:
        self._items.append(item)
        self._bytes += item.size
        self._filled.set()
        self._fit()

    # Reading

    def __aiter__(self) -> Outbox[T]:
        return self

    async def __anext__(self) -> T:
        items = self._items
        while not items:
            if self._closed:
                raise StopAsyncIteration
            self._filled.clear()
            await wait_any((self._filled,))
        item = items.popleft()
        if not items:  # mostly: there is nothing to compute
            self._bytes = 0
            self._room.set()
            return item
        self._bytes -= item.size
        if len(items) < self.capacity and self._bytes < self.capacity_bytes:
            self._room.set()
        return item

    async def batch(self) -> list[T]:
        """Wait for an item; that and all that are there, oldest first. Empty after the last one."""
        while not self._items and not self._closed:
            self._filled.clear()
            await wait_any((self._filled,))
        return self.take_all_nowait()

    def take_all_nowait(self) -> list[T]:
        """All that is there, oldest first."""
        taken = list(self._items)
        self._items.clear()
        self._bytes = 0
        self._room.set()
        return taken

    def unread(self, *items: T) -> None:
        """Put back what was taken last and could not be delivered, in the order it had.

        For a reader that is cancelled in between. Detached, they are the first to be dropped.
        """
        self._items.extendleft(reversed(items))
        self._bytes += sum(item.size for item in items)
        self._filled.set()
        self._fit()

    # Coming and going

    def detach(self, keep_bytes: int) -> None:
        """The reader has gone: nobody waits for room any more, and of the items the newest are
        kept, up to `keep_bytes` in all and `KEPT_ITEMS`.
        """
        self._kept = keep_bytes
        self._fit()
        self._room.set()

    def attach(self) -> Dropped:
        """A reader has come: what was dropped since the last one went.

        Where more is left than the box holds, there is no room until it has been read.
        """
        self._kept = None
        self._fit()
        dropped = Dropped(self._dropped_items, self._dropped_bytes)
        self._dropped_items = self._dropped_bytes = 0
        return dropped

    def _fit(self) -> None:
        """Drop what is too much if it is detached; else have no room if it is full."""
        if self._kept is not None:
            self._drop_oldest(self._kept)
        elif len(self._items) >= self.capacity or self._bytes >= self.capacity_bytes:
            self._room.clear()

    def _drop_oldest(self, keep_bytes: int) -> None:
        items = self._items
        spared = 1 if self._closed else 0
        while len(items) > spared and (self._bytes > keep_bytes or len(items) > KEPT_ITEMS):
            size = items.popleft().size
            self._bytes -= size
            self._dropped_items += 1
            self._dropped_bytes += size
