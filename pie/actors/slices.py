"""How many passes are answered before the loop gets a turn.

Each answer wakes a guest, which runs in the loop's next pass: what is answered in one go is for
how long everybody else waits. Guests differ by a factor of ten, so the number follows what the
last passes of the loop took.
"""

from __future__ import annotations

import attrs

LARGEST = 64
"""More was measured as latency even with the quickest guests."""
SMALLEST = 8
"""A pass of the loop costs about as much as a guest's token: fewer would be felt."""
AIM = 0.004
"""Seconds that a pass of the loop may take. A timer waits for up to two of them."""


@attrs.define(eq=False)
class SettleSlice:
    """The size of the next slice."""

    size: int = LARGEST

    def took(self, seconds: float) -> None:
        """The loop's pass after a slice of this size took so long; none in virtual time."""
        wanted = int(self.size * AIM / seconds) if seconds > 0 else LARGEST
        # At most doubled or halved: one pass may have been long for another reason.
        near = min(max(wanted, self.size // 2), self.size * 2)
        self.size = min(max(near, SMALLEST), LARGEST)
