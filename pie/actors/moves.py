"""Which KV pages go to host memory for whom, and which come back (contract R5). A pure core."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import attrs

from pie.errors import OutOfResources, PageLost, PieError
from pie.ids import InstanceId, ResourceKind
from pie.probes import sometimes

from .pages import PageTable
from .passes import Pending, PendingPass, Resource
from .pools import ExportKey, Pool
from .room import Request, Returned

PAGES = ResourceKind.KV_PAGE


@attrs.frozen
class Losses:
    """What becomes of pages whose contents are lost."""

    failed: list[Pending]
    """Passes that need them, with the reason as their error."""
    gone: list[ExportKey]
    """Exports that had them and are in no file."""


@attrs.frozen(eq=False)
class Moves:
    """Decisions on the page table; contents and their ways are the shell's."""

    table: PageTable

    @property
    def _pool(self) -> Pool:
        return self.table.pools[PAGES]

    def due(self) -> bool:
        """Whether somebody waits for KV pages, or contents have to be written back."""
        return self.table.room.first(PAGES) is not None or bool(self.table.room.returned)

    def hopeless(self) -> bool:
        """Whether host memory has no room for what would have to move out for the first in line.

        While it has, the first in line waits: whoever shares pages may yet let go.
        """
        first = self.table.room.first(PAGES)
        return first is not None and self._missing(first) > len(self.table.room.host.free)

    def _missing(self, first: Request) -> int:
        return first.wanted() - len(self._pool.free)

    def choose(self, idle: Sequence[InstanceId]) -> tuple[Request, list[Resource]] | None:
        """The first in line and the pages to move out for it, or None if that cannot make room.

        An older instance that is at work keeps its pages: it would ask for them back at once, and
        be served first. Whoever came back is left alone until one of its passes has finished. No
        step may be running.
        """
        first = self.table.room.first(PAGES)
        if first is None:
            return None
        pages = self._enough(first, self.table.victims.movable(first.instance, idle))
        return (first, pages) if pages else None

    def _enough(self, request: Request, movable: Iterable[Resource]) -> list[Resource]:
        """As many of the `movable` pages as make room for `request`, or none if that is too few."""
        missing = self._missing(request)
        if not 0 < missing <= len(self.table.room.host.free):
            return []
        chosen = list(islice(movable, missing))
        return chosen if len(chosen) == missing else []

    def choose_past(self) -> tuple[Request, list[Resource]] | None:
        """Somebody behind the first in line, who cannot be served, and the pages to move out for
        it; None if nobody can.

        Only where nothing else can happen: shared pages are in the way of the first, and who
        shares them waits behind it. Whoever is let past goes on, and lets go of them in the end.
        """
        for request in self.table.room.behind_first(PAGES):
            if self._missing(request) <= 0:
                return request, []
            if pages := self._enough(request, self.table.victims.movable_past(request.instance)):
                return request, pages
        return None

    def moved_out(self, page: Resource, number: int) -> int | None:
        """The contents of `page`, then at `number`, have been read: its place, if it still goes."""
        if page.number != number or not page.private:
            sometimes("a page is let go while it moves out")
            return None
        place = page.place = self.table.room.host.take()
        page.number = None
        self._pool.give_back(number)
        for work in dict.fromkeys(work for work, _ in self.table.users.of(page)):
            page.awaited_by(work)
            if isinstance(work, PendingPass):
                self.table.binding.ask_back(work)
        return place

    def take_returned(self) -> dict[int, Returned]:
        """By number, what has to be written back before the next step.

        A page that was let go meanwhile is written all the same, unless its number has gone to
        another one that came back: it is free, or cleared before its next owner's first step.
        """
        room = self.table.room
        returned, room.returned = room.returned, []
        for one in returned:
            room.host.give_back(one.place)
        return {one.number: one for one in returned}

    def lose(self, returned: Iterable[Returned], error: PageLost) -> Losses:
        """The device would not take what came back from host memory: what that costs."""
        lost = [one for one in returned if one.page.number == one.number]
        failed: dict[Pending, None] = {}
        for one in lost:
            self._pool.stale.add(one.number)  # a former owner's (R3)
            one.page.spoiled = 0, self.table.page_size, error
            failed.update((work, None) for work, _ in self.table.users.of(one.page))
        for work in failed:
            work.error = work.error or error
        gone = self.table.book.lose_pages([one.page for one in lost], error)
        return Losses(list(failed), gone)

    def refusal(self) -> tuple[Request, OutOfResources]:
        """Who is first in line, and what to tell it when it is given up on."""
        room = self.table.room
        first = room.first(PAGES)
        assert first is not None
        holds = self.table.holds(first.instance, PAGES)
        return first, OutOfResources(
            f"instance {first.instance} holds {holds} KV pages "
            f"and needs {first.wanted()} more; {len(self._pool.free)} of {self._pool.capacity} are "
            f"free, and with {room.host.used} of {room.host.capacity} host pages in use there is "
            "no room for what would have to move out"
        )

    def refuse(self, request: Request, error: PieError) -> list[Pending]:
        """Give up on one who stands in line; what fails with it."""
        room = self.table.room
        failed = room.refuse(request, error)
        for work in failed:
            work.error = error
        room.serve()  # the next may fit
        return failed
