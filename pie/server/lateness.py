"""How late the loop turns to what is due: what everybody on it waits in addition."""

from __future__ import annotations

from collections import deque

import attrs
import trio

from .buckets import SECONDS, Buckets

PERIOD = 0.1
"""Seconds between two looks."""
RECENT = 100
"""Looks that make up the recent past: ten seconds of a loop that is on time."""


@attrs.define(eq=False)
class Lateness:
    """A task that sleeps, and how much longer than it wanted."""

    seconds: Buckets = attrs.field(factory=lambda: Buckets(SECONDS))
    _recent: deque[float] = attrs.field(factory=lambda: deque(maxlen=RECENT))

    async def run(self) -> None:
        """Look for ever."""
        while True:
            due = trio.current_time() + PERIOD
            await trio.sleep_until(due)
            self.note(trio.current_time() - due)

    def note(self, seconds: float) -> None:
        """It was so late once."""
        self.seconds.add(seconds)
        self._recent.append(seconds)

    @property
    def worst(self) -> float:
        """The latest it has been of late."""
        return max(self._recent, default=0.0)
