"""Tokens that the engine draws one after the other without this inferlet in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import host
from .samplers import Sampler

if TYPE_CHECKING:
    from .pages import Page, PagePool

MANY = 1 << 30
FAR = 64
"""Steps that are asked for at once, if there are pages to spare for them."""


@dataclass(eq=False, kw_only=True)
class Ahead:
    """A decoding that is going on. Tokens that were not taken from it do not count when it ends
    by `stop`: the next pass draws what it would have drawn after single steps.
    """

    decoding: Any
    sampler: Sampler
    closing: Sequence[int]
    left: int
    """How many tokens it may still give."""
    size: int
    """Tokens per KV page."""
    room: int
    """Tokens that may be taken before the context needs another page; below 0: it needs some."""
    spare: list[Page]
    """Pages for those after them, which are the context's when it needs them."""
    pool: PagePool
    over: bool = False
    """Whether all of its tokens have been taken."""
    wanted: int = 0
    """How many somebody waits for."""
    _early: list[int] = field(default_factory=list)
    """Tokens taken for who waits for more."""
    _progress: Any = None

    def __post_init__(self) -> None:
        if self.spare:
            self.pool.lent.append(self)

    def suits(self, sampler: Sampler, closing: Sequence[int], most: int) -> bool:
        """Whether it gives what is wanted now: it may have been begun for somebody else."""
        return (self.sampler, self.closing) == (sampler, closing) and self.left <= most

    async def take(self, most: int) -> list[int]:
        """The next token, or up to `most` at its end: this inferlet is woken once.

        Fewer, and maybe none, if it had to give way.
        """
        self.wanted = most
        try:
            if most > 1:
                return await self._rest()
            if not host.alone():
                return await self._next()
            tokens: list[int] = await host.decoding_next(self.decoding, 1)
        finally:
            self.wanted = 0
        self._count(tokens)
        self.over = not tokens or not self.left or tokens[0] in self.closing
        return tokens

    async def _next(self) -> list[int]:
        """The next token while others of this inferlet go on."""
        if self._progress is None:
            self._progress = await host.decoding_pollable(self.decoding)
        while True:
            await host.wait(self._progress)  # at once if there is a token, which is rare
            tokens = await self._get(1)
            if tokens or self.over:
                return tokens

    async def _rest(self) -> list[int]:
        await host.ready(await host.decoding_ended(self.decoding))
        tokens = await self._get(MANY)
        return self._early + tokens

    async def _get(self, most: int) -> list[int]:
        tokens, self.over = await host.decoding_get(self.decoding, most)
        self._count(tokens)
        return list(tokens)

    def _count(self, tokens: Sequence[int]) -> None:
        taken = len(tokens)
        self.left -= taken
        self.room -= taken

    def _needed(self) -> int:
        """How many of its pages the tokens taken are in."""
        return max(0, -(self.room // self.size))

    def claim(self) -> list[Page]:
        """The pages that the tokens taken are in, for the context to have."""
        needed = self._needed()
        self.room += needed * self.size
        claimed, self.spare = self.spare[:needed], self.spare[needed:]
        return claimed

    async def give_way(self) -> None:
        """End early, and let go of the pages that are not needed then."""
        if self.wanted > 1:
            self._early += await self._get(MANY)
        if not self.over:
            await host.decoding_cancel(self.decoding)
        self._let_go(self._needed())

    def _let_go(self, keep: int) -> None:
        if self in self.pool.lent:
            self.pool.lent.remove(self)
        self.pool.release(self.spare[keep:])
        del self.spare[keep:]

    async def stop(self) -> None:
        """End it, and let go of it."""
        if not self.over:
            await host.decoding_cancel(self.decoding)
        self.drop()

    def drop(self) -> None:
        """Let go of it: as good as `stop` if nothing is submitted to its queue right after."""
        if self._progress is not None:
            host.drop(self._progress)
        host.drop(self.decoding)
        self._let_go(0)
