"""A device that answers at once, and knows between which two batches all guests decode."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import attrs
import numpy as np
import trio
from trio.testing import wait_all_tasks_blocked

from pie.batch import Batch, BatchResult, Ints
from pie.multistep import DONE, OVER, MultiStep
from pie.testing import HashModel

from .machine import Usage

T = TypeVar("T")

LETTERS = 26


@attrs.define(eq=False, kw_only=True)
class Window:
    """The steady state: from where the guests have one token each, in the mean, to the first end.

    All guests have been let go before, and none has its last token. After that a guest samples
    its first token at position `first` and its last at position `last`.
    """

    guests: int
    first: int
    last: int
    begin: Callable[[], None] | None = None
    end: Callable[[], None] | None = None
    """Called at the two moments."""
    began: Usage | None = None
    ended: Usage | None = None
    tokens: int = 0
    batches: int = 0
    started: int = 0
    """Guests that have had a token, up to the end."""
    _before: int = 0

    def saw(self, positions: Ints) -> None:
        """A batch samples at these positions."""
        if self.ended is not None:
            return
        self.started += int(np.count_nonzero(positions == self.first))
        ends = bool((positions == self.last).any())
        if self.began is None:
            assert not ends, "a guest has ended before most have begun: they need more tokens"
            self._before += len(positions)
            if self._before >= self.guests:
                if self.begin is not None:
                    self.begin()
                self.began = Usage.now()
            return
        self.tokens += len(positions)
        self.batches += 1
        if ends:
            self.ended = Usage.now()
            if self.end is not None:
                self.end()

    @property
    def bounds(self) -> tuple[Usage, Usage]:
        """The clocks at its begin and its end."""
        assert self.began is not None, "the guests never all ran at once"
        assert self.ended is not None, "no guest reached its last token"
        return self.began, self.ended


@attrs.define(eq=False)
class InstantDevice:
    """A `Device` without arithmetic: the token after position p is letter p of the alphabet."""

    runner: HashModel
    window: Window | None = None

    async def run(self, batch: Batch) -> BatchResult:
        await trio.lowlevel.checkpoint()
        positions = batch.positions[batch.sampled_rows]
        self._saw(positions)
        finite = np.ones(len(positions), dtype=np.bool_)
        return BatchResult(tokens=97 + positions % LETTERS, sampled_finite=finite)

    async def run_steps(self, steps: MultiStep) -> None:
        """Each ends when the host has done all that the one before it gave it to do: so a token
        wakes who waits for it, as beside a real step. Nothing may stop at a token.
        """
        assert not len(steps.stops)
        positions = steps.batch.positions + np.arange(steps.steps, dtype=np.int32)[:, np.newaxis]
        steps.tokens[:], steps.finite[:] = 97 + positions % LETTERS, True
        for done, those in enumerate(positions, 1):
            await wait_all_tasks_blocked()
            self._saw(those)
            steps.state[OVER] = over = done == steps.steps or steps.halted
            steps.state[DONE] = done
            if steps.announced:
                steps.progress.set()
            if over:
                break

    def _saw(self, positions: Ints) -> None:
        if self.window is not None:
            self.window.saw(positions)

    async def apply(self, method: Callable[..., T], /, *arguments: object) -> T:
        return method(*arguments)


def expected_text(tokens: int, context: int) -> str:
    """What a guest has to return that decodes `tokens` tokens after `context` ones."""
    return "".join(chr(97 + (context - 1 + step) % LETTERS) for step in range(tokens))
