"""The KV cache of a context: the pages that hold the first of its tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .pages import Page, PagePool


@dataclass(eq=False)
class Cache:
    """Pages in order, some of which forks may list too, and how many tokens are in them."""

    _pool: PagePool
    _page_size: int
    pages: list[Page] = field(default_factory=list)
    written: int = 0

    @property
    def pointers(self) -> list[int]:
        return [page.pointer for page in self.pages]

    @property
    def slots(self) -> int:
        """How many tokens the pages have room for."""
        return len(self.pages) * self._page_size

    async def prepare(self, queue: Any, length: int) -> None:
        """Have pages for `length` tokens, and write to none that a fork lists too."""
        index = self.written // self._page_size
        if index < len(self.pages) and self.pages[index].users > 1:
            self.pages[index] = await self._pool.part(queue, self.pages[index])
        missing = -(-length // self._page_size) - len(self.pages)
        if missing > 0:
            self.pages += await self._pool.take(queue, missing)

    def fork(self) -> Cache:
        """The same pages for another context."""
        self._pool.share(self.pages)
        return Cache(self._pool, self._page_size, list(self.pages), self.written)

    def truncate(self, length: int) -> None:
        """Keep the first `length` tokens, and no page without any of them."""
        self.written = min(self.written, length)
        keep = -(-self.written // self._page_size)
        self._pool.release(self.pages[keep:])
        del self.pages[keep:]

    def remove(self, index: int) -> None:
        """Let go of a full page; the tokens in later ones move to lower slots."""
        self._pool.release([self.pages.pop(index)])
        self.written -= self._page_size
