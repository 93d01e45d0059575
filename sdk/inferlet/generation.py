"""Generating text piece by piece."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from .ahead import MANY
from .samplers import Sampler
from .stops import Stop
from .text import TextDecoder

if TYPE_CHECKING:
    from .context import Context

FinishReason = Literal["stop", "max_tokens"]


@dataclass(eq=False)
class Generation:
    """Text being generated. Iterate for its pieces; each is final and well-formed.

    Text that may turn out to be the beginning of a stop is held back. Leaving the iteration
    early leaves the context at the last token that was drawn.
    """

    context: Context
    sampler: Sampler
    stop: Stop
    ignore_eos: bool = False
    """Whether to go on past the model's end of turn."""
    tokens: list[int] = field(default_factory=list)
    """All that was drawn, stop tokens included."""
    text: str = ""
    """All the text so far, what matched a stop excluded."""
    finish_reason: FinishReason | None = None
    """None while it is going on."""
    _decoder: TextDecoder = field(init=False)
    _decoded: int = 0
    _given: int = 0

    def __post_init__(self) -> None:
        self._decoder = TextDecoder(self.context.model)

    def __aiter__(self) -> Generation:
        return self

    async def __anext__(self) -> str:
        await self._begin()
        while self.finish_reason is None:
            await self._advance()
            held = 0 if self.finish_reason else self.stop.held(self.text[self._given :])
            piece = self.text[self._given : len(self.text) - held]
            if piece:
                self._given += len(piece)
                return piece
        raise StopAsyncIteration

    async def finish(self) -> Generation:
        """Run to the end."""
        await self._begin()
        while self.finish_reason is None:
            # A text may be complete after any token; sequences and the limit end a draw.
            await self._advance(whole=not self.stop.texts)
        self._given = len(self.text)
        return self

    async def _begin(self) -> None:
        if not self.ignore_eos and not self.tokens:
            self.stop |= await self.context.model.end_of_turn()

    async def _advance(self, *, whole: bool = False) -> None:
        limit = self.stop.limit
        most = MANY if limit is None else limit - len(self.tokens)
        self.tokens += await self.context.draw(self.sampler, most, self.stop, whole=whole)
        matched = self.stop.matched(self.tokens)
        if matched:
            self.finish_reason = "stop"
        elif limit is not None and len(self.tokens) >= limit:
            self.finish_reason = "max_tokens"
        await self._decode(matched)
        if self.finish_reason is not None:
            await self.context.generated(self)

    async def _decode(self, matched: int) -> None:
        held = matched if self.finish_reason else self.stop.begun(self.tokens)
        end = len(self.tokens) - held
        self.text += await self._decoder.add(self.tokens[self._decoded : end])
        self._decoded = max(self._decoded, end)
        if self.finish_reason is not None:
            self.text += self._decoder.finish()
        place = self.stop.found(self.text[self._given :])
        if place >= 0:
            self.text = self.text[: self._given + place]
            self.finish_reason = "stop"
