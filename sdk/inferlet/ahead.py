"""Tokens that the engine draws one after the other without this inferlet in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import host
from .samplers import Sampler

MANY = 1 << 30


class Ahead:
    """A decoding that is going on. Tokens that were not taken from it do not count when it ends
    by `stop`: the next pass draws what it would have drawn after single steps.
    """

    def __init__(self, decoding: Any, sampler: Sampler, closing: Sequence[int], steps: int) -> None:
        self._decoding = decoding
        self._terms = sampler, closing
        self._left = steps
        self._progress: Any = None
        self.over = False
        """Whether all of its tokens have been taken."""

    def suits(self, sampler: Sampler, closing: Sequence[int], most: int) -> bool:
        """Whether it gives what is wanted now: it may have been begun for somebody else."""
        return self._terms == (sampler, closing) and self._left <= most

    async def next(self) -> int:
        """Take the next token. Not if it is over."""
        while True:
            tokens, self.over = await host.decoding_get(self._decoding, 1)
            if tokens:
                self._left -= 1
                token: int = tokens[0]
                return token
            if self._progress is None:
                self._progress = await host.decoding_pollable(self._decoding)
            await host.wait(self._progress)

    async def rest(self) -> list[int]:
        """Wait for its end and take all that is left: this inferlet is woken once."""
        await host.ready(await host.decoding_ended(self._decoding))
        tokens, self.over = await host.decoding_get(self._decoding, MANY)
        return list(tokens)

    async def stop(self) -> None:
        """End it, and let go of it."""
        if not self.over:
            await host.decoding_cancel(self._decoding)
        self.drop()

    def drop(self) -> None:
        """Let go of it: as good as `stop` if nothing is submitted to its queue right after."""
        if self._progress is not None:
            host.drop(self._progress)
        host.drop(self._decoding)
