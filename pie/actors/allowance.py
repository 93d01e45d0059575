"""How many rows of long passes a step may have beside short ones. A pure core.

A prompt of thousands of rows would hold up every decode pass that shares its step. So it gets as
many rows as let the step take `slowdown` times what it is predicted to take without them: enough
to fill an accelerator that waits for memory while it decodes, little enough that nobody notices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import attrs

from .prediction import StepTime

LEAST = 8
"""Rows that the first long pass of a step gets in any case, so that it progresses."""
FIRST = 64
"""Rows to begin with. Rows are free as long as the accelerator waits for memory anyway, and dear
after that; so the next step may have twice the rows of those before, not as many as a straight line
through free ones has it."""
KEEP = 0.9
"""What is left, one step with long passes later, of how far was tried."""
WEIGHT = 0.2
"""Of a step in the mean of how long the short passes take."""


class Piece(Protocol):
    """A chunk of a pass, as far as it matters here."""

    @property
    def count(self) -> int: ...
    @property
    def slots(self) -> int: ...


@attrs.define(eq=False)
class Allowance:
    """Gives out the rows of one step after the other: `begin`, then `rows` and `spend` in turn."""

    time: StepTime
    slowdown: float
    _usual: float = 0.0
    """Running mean of what the short passes of a step alone were predicted to take."""
    _tried: float = FIRST / 2
    """Rows of long passes in the last steps that had any, the most, forgetting."""
    _left: float = math.inf
    _given: int = 0
    """Rows in this step."""

    def begin(self, shorts: Sequence[Piece], moving: int) -> None:
        """A step with these short passes, whose guests or others are moving."""
        if self._given:
            self._tried = max(self._given, KEEP * self._tried, FIRST / 2)
        self._given = 0
        if shorts:
            rows = sum(piece.count for piece in shorts)
            alone = self.time.seconds(len(shorts), rows, sum(piece.slots for piece in shorts))
            self._usual += (WEIGHT if self._usual else 1.0) * (alone - self._usual)
            self._left = (self.slowdown - 1) * alone
        elif moving and self._usual:
            # They will be ready before a long step is over: it has to end as if they were in it.
            self._left = self.slowdown * self._usual - self.time.overhead
        else:
            self._left = math.inf

    def rows(self, slots: int) -> int | None:
        """Rows that a long pass with `slots` KV slots may have; None: any number."""
        if self._left == math.inf:
            return None
        most = int(2 * self._tried) - self._given
        left = self._left - self.time.seconds(1, 1, slots) + self.time.overhead
        row = self.time.row_seconds
        if left < most * row:
            most = max(0, int(left / row)) if row else 0
        return most if most >= LEAST or self._given else LEAST

    def spend(self, piece: Piece) -> None:
        """A long pass got these rows."""
        self._given += piece.count
        self._left -= self.time.seconds(1, piece.count, piece.slots) - self.time.overhead
