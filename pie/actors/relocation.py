"""Moves KV pages to host memory and back, between two steps of a model (contract R5)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

import attrs
import numpy as np
import trio
from numpy.typing import NDArray

from pie.batch import ints
from pie.errors import PageLost, PassFailed
from pie.ids import InstanceId, ResourceKind
from pie.messages import ExecutorMessage, ReadPages, WritePages
from pie.probes import sometimes

from .executor import insist
from .moves import Moves
from .observer import Observer
from .passes import Pending, Resource
from .room import Request, Returned

log = logging.getLogger(__name__)


@attrs.define(eq=False)
class Relocation:
    """The contents of the pages that are in host memory, and the way there and back.

    Bytes are opaque here: what a page looks like inside is the model's.
    """

    _moves: Moves
    _executor: trio.MemorySendChannel[ExecutorMessage]
    _fail: Callable[[Sequence[Pending]], None]
    """Called with passes that have an error now."""
    _give_up: Callable[[Request, PassFailed], None]
    """Called for one in line for whom pages cannot move out."""
    _observer: Observer | None = None
    _contents: dict[int, NDArray[np.uint8]] = attrs.field(factory=dict)
    """By place in host memory."""
    moved_out: int = 0

    async def make_room(self, idle: Sequence[InstanceId]) -> bool:
        """Make room for the first in line as long as that can be, and bring back what was granted.

        Says whether anything moved. When it returns, all that passes may run with is in place.
        """
        moved = await self.back()
        while chosen := self._moves.choose(idle):
            await self._out(*chosen)
            self._moves.table.room.serve()
            await self.back()  # first of all: one of them may be chosen to go out again
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
            await self._out(request, pages)
        room = self._moves.table.room
        room.let_past(request)
        room.serve()
        await self.back()
        return True

    async def back(self) -> bool:
        """Write back what was granted; says whether there was any."""
        moved = False
        while returned := self._moves.take_returned():
            contents = np.stack([self._contents.pop(one.place) for one in returned.values()])
            write = partial(WritePages, ints(list(returned)), contents)
            try:
                await insist(self._executor, write)
            except PassFailed as error:
                self._lose(list(returned.values()), error)
            else:
                if self._observer is not None:
                    self._observer.moved_back(list(returned))
            moved = True
        return moved

    def _lose(self, returned: Sequence[Returned], error: PassFailed) -> None:
        sometimes("pages are lost on their way back")
        reason = PageLost(f"a KV page was lost on its way back from host memory: {error}")
        losses = self._moves.lose(returned, reason)
        self._fail(losses.failed)
        for user, _, name in losses.gone:
            log.warning("export %r of user %s is gone: %s", name, user, str(reason))

    async def _out(self, request: Request, pages: Sequence[Resource]) -> None:
        """Move `pages` to host memory for `request`, which is given up if that cannot be."""
        sometimes("pages move to host memory")
        numbers = [page.number for page in pages if page.number is not None]
        try:
            contents = await self._read_pool(numbers)
        except PassFailed as error:
            sometimes("pages cannot move out")
            text = f"there was no room, and KV pages could not move to host memory: {error}"
            self._give_up(request, PassFailed(text))
            return
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
        """The contents of pages, wherever each is: [pages, page bytes]; raises PassFailed.

        No step may be running, and what was to return must be `back`.
        """
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
