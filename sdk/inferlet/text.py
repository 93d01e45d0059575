"""Turning tokens into text one at a time, although a character may take several tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
_WINDOW = 16


class Detokenizer(Protocol):
    async def detokenize(self, tokens: Sequence[int]) -> str: ...


@dataclass(eq=False)
class TextDecoder:
    """Decodes a growing list of tokens; each piece is final.

    An incomplete UTF-8 sequence shows as one U+FFFD at the end of the text (contract X2) and is
    held back until its last byte has come. Only the last few tokens are decoded again: what is
    given out is counted within that window, never compared with it.
    """

    detokenizer: Detokenizer
    _window: list[int] = field(default_factory=list)
    _given: int = 0
    _held: str = ""

    async def add(self, tokens: Sequence[int]) -> str:
        """The text that has become certain with `tokens`."""
        if not tokens:
            return ""
        self._window += tokens
        text = await self.detokenizer.detokenize(self._window)
        certain = text.removesuffix(_INCOMPLETE)
        end = len(certain)
        piece, self._held = certain[self._given :], text[end:]
        if end > self._given:
            self._given = end
        if len(self._window) >= _WINDOW and not self._held:
            self._window = self._window[-1:]
            self._given = len(await self.detokenizer.detokenize(self._window))
        return piece

    def finish(self) -> str:
        """What was held back, now that nothing more comes."""
        held, self._held = self._held, ""
        return held
