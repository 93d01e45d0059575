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
        if not self.tokens:
            await self._begin()
        while self.finish_reason is None:
            await self._advance()
            piece = self.text[self._given :]
            if self.stop.texts and self.finish_reason is None:
                piece = piece[: len(piece) - self.stop.held(piece)]
            if piece:
                self._given += len(piece)
                return piece
        raise StopAsyncIteration

    async def finish(self) -> Generation:
        """Run to the end."""
        if not self.tokens:
            await self._begin()
        while self.finish_reason is None:
            # A text may be complete after any token; sequences and the limit end a draw.
            await self._advance(whole=not self.stop.texts)
        self._given = len(self.text)
        return self

    async def _begin(self) -> None:
        if not self.ignore_eos:
            self.stop |= await self.context.model.end_of_turn()

    async def _advance(self, *, whole: bool = False) -> None:
        stop, tokens = self.stop, self.tokens
        most = MANY if stop.limit is None else stop.limit - len(tokens)
        drawn = await self.context.draw(self.sampler, most, stop, whole=whole)
        tokens += drawn
        matched = stop.matched(tokens)
        if matched:
            self.finish_reason = "stop"
        elif len(drawn) >= most:
            self.finish_reason = "max_tokens"
        end = len(tokens) - (matched if self.finish_reason else stop.begun(tokens))
        if end > self._decoded:
            self.text += await self._decoder.add(tokens[self._decoded : end])
            self._decoded = end
        if self.finish_reason is not None:
            self.text += self._decoder.finish()
        if stop.texts:
            self._look_for_text()
        if self.finish_reason is not None:
            await self.context.generated(self)

    def _look_for_text(self) -> None:
        place = self.stop.found(self.text[self._given :])
        if place >= 0:
            self.text = self.text[: self._given + place]
            self.finish_reason = "stop"
