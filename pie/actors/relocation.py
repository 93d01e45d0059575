"""Moves KV pages to host memory and back, between two steps of a model (contract R5)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import attrs
import numpy as np
import trio
from numpy.typing import NDArray

from pie.batch import ints
from pie.ids import InstanceId, ResourceKind
from pie.messages import ExecutorMessage, ReadPages, WritePages
from pie.probes import sometimes

from .executor import insist
from .moves import Moves
from .observer import Observer
from .passes import Resource


@attrs.define(eq=False)
class Relocation:
    """The contents of the pages that are in host memory, and the way there and back.

    Bytes are opaque here: what a page looks like inside is the model's.
    """

    _moves: Moves
    _executor: trio.MemorySendChannel[ExecutorMessage]
    _observer: Observer | None = None
    _contents: dict[int, NDArray[np.uint8]] = attrs.field(factory=dict)
    """By place in host memory."""
    moved_out: int = 0

    async def make_room(self, idle: Sequence[InstanceId]) -> bool:
        """Make room for the first in line as long as that can be, and bring back what was granted.

        Says whether anything moved. When it returns, all that passes may run with is in place.
        """
        moved = await self._back()
        while pages := self._moves.choose(idle):
            await self._out(pages)
            self._moves.table.room.serve()
            await self._back()  # first of all: one of them may be chosen to go out again
            moved = True
        return moved

    async def let_past(self) -> bool:
        """Serve somebody behind the first in line; False if there is nobody. No step can run."""
        found = self._moves.choose_past()
        if found is None:
            return False
        sometimes("somebody is let past the first in line")
        request, pages = found
        if pages:
            await self._out(pages)
        room = self._moves.table.room
        room.let_past(request)
        room.serve()
        await self._back()
        return True

    async def _back(self) -> bool:
        """Write back what was granted; says whether there was any."""
        moved = False
        while returned := self._moves.take_returned():
            contents = np.stack([self._contents.pop(place) for place in returned.values()])
            await insist(self._executor, partial(WritePages, ints(list(returned)), contents))
            if self._observer is not None:
                self._observer.moved_back(list(returned))
            moved = True
        return moved

    async def _out(self, pages: Sequence[Resource]) -> None:
        sometimes("pages move to host memory")
        numbers = [page.number for page in pages if page.number is not None]
        contents = await self._read_pool(numbers)
        gone: list[int] = []
        for page, number, content in zip(pages, numbers, contents, strict=True):
            place = self._moves.moved_out(page, number)
            if place is not None:
                self._contents[place] = content.copy()
                self.moved_out += 1
                gone.append(number)
        if self._observer is not None:
            self._observer.moved_out(gone)

    async def _read_pool(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        contents = await insist(self._executor, partial(ReadPages, ints(numbers)))
        stale = self._moves.table.pools[ResourceKind.KV_PAGE].stale
        for number, content in zip(numbers, contents, strict=True):
            if number in stale:
                sometimes("a page is read before it is cleared")
                content[:] = 0  # a former owner's, not cleared yet (R3)
        return contents

    async def read(self, pages: Sequence[Resource]) -> NDArray[np.uint8]:
        """The contents of pages, wherever each is: [pages, page bytes]. No step may be running."""
        await self._back()
        # Messages are taken while we wait: what is where must be known before.
        away = [None if page.place is None else self._contents[page.place] for page in pages]
        read = iter(await self._read_pool([p.number for p in pages if p.number is not None]))
        parts = [next(read) if content is None else content for content in away]
        return np.stack(parts) if parts else np.zeros((0, 0), dtype=np.uint8)

    def keep(self, places: Sequence[int], contents: NDArray[np.uint8]) -> None:
        """Put contents from elsewhere, [places, page bytes], where they return from."""
        self._contents.update(zip(places, contents, strict=bool(places)))
        host = self._moves.table.room.host
        for place in [p for p in self._contents if p >= host.capacity and p not in host.extra]:
            del self._contents[place]  # of an entry that was let go before it returned
