"""KV pages as the contexts of one inferlet share them: freed when the last of them lets go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from . import host
from .ahead import Ahead


@dataclass(eq=False)
class Page:
    """One KV page and the number of contexts that list it."""

    pointer: int
    users: int = 1


@dataclass(eq=False)
class PagePool:
    """The pages of one model.

    Letting go needs no host call, so that a forgotten context can do it: pointers collect until
    somebody next allocates, or calls `settle`.
    """

    lent: list[Ahead] = field(default_factory=list)
    """Decodings that have pages which they may not need."""
    _released: list[int] = field(default_factory=list)
    _abandoned: list[Ahead] = field(default_factory=list)

    async def take(self, queue: Any, count: int) -> list[Page]:
        """New pages; waits until the engine has room for all of them (contract R4).

        Nothing is held meanwhile that is not needed: whoever waits in a component keeps all of it
        from going on. Decodings give way, those that somebody waits for only in a shortage.
        """
        await self._make_way(queue)
        pointers: list[int] = []
        if self.lent:
            pointers = list(await host.try_allocate(queue, host.KV_PAGE, count))
        if len(pointers) < count:
            self._released += pointers
            for ahead in self.lent.copy():
                await ahead.give_way()
            await self.settle(queue)
            pointers = list(await host.allocate(queue, host.KV_PAGE, count))
        return [Page(pointer) for pointer in pointers]

    async def spare(self, queue: Any, count: int) -> list[Page]:
        """Up to `count` new pages that are there for the taking."""
        if count <= 0:
            return []
        await self.settle(queue)
        return [Page(pointer) for pointer in await host.try_allocate(queue, host.KV_PAGE, count)]

    async def _make_way(self, queue: Any) -> None:
        for ahead in [each for each in self.lent if not each.wanted]:
            await ahead.give_way()
        await self.settle(queue)

    async def part(self, queue: Any, page: Page) -> Page:
        """For one context that lists `page`: the same, which the engine copies when written to."""
        await self._make_way(queue)
        (pointer,) = await host.share_pages(queue, [page.pointer])
        self.release([page])
        return Page(pointer)

    def share(self, pages: list[Page]) -> None:
        """One more context lists `pages`."""
        for page in pages:
            page.users += 1

    def release(self, pages: list[Page], abandoned: Sequence[Ahead] = ()) -> None:
        """One context fewer lists `pages`; nobody wants what is `abandoned`."""
        self._abandoned += abandoned
        for page in pages:
            page.users -= 1
            if not page.users:
                self._released.append(page.pointer)

    async def settle(self, queue: Any) -> None:
        """Give back what nobody uses. Passes already submitted keep their pages (contract R2)."""
        while self._abandoned:
            self._abandoned.pop().drop()
        if self._released:
            pointers, self._released = self._released, []
            await host.deallocate(queue, host.KV_PAGE, pointers)
