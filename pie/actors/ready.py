"""The passes of one kind that are ready, and who of them is next where not all fit. A pure core."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from .fairness import FairOrder
from .passes import PendingPass


@attrs.define(eq=False)
class ReadyLine:
    """Kept up to date by what changes, so that a step costs nothing for who has to wait longer."""

    order: FairOrder[PendingPass]
    passes: dict[PendingPass, int] = attrs.field(factory=dict)
    """With the rows that each has left."""
    rows: int = 0
    """Of all."""
    _fresh: dict[PendingPass, None] = attrs.field(factory=dict)
    """Those that `order` has not been told of or has given out, or whose place has changed."""

    def put(self, work: PendingPass) -> None:
        """It is ready, or has another priority or fewer rows than before."""
        self.rows += work.remaining - self.passes.get(work, 0)
        self.passes[work] = work.remaining
        self._fresh[work] = None

    def drop(self, work: PendingPass) -> None:
        """It is not ready any more, if it was."""
        rows = self.passes.pop(work, None)
        if rows is not None:
            self.rows -= rows
            self._fresh.pop(work, None)
            self.order.discard(work)

    def picks(self, now: float) -> Iterator[PendingPass]:
        """All of them, who is next first; what is picked and not run is picked again later."""
        self.order.offer(self.passes if self.order.idle else self._fresh, now)
        self._fresh.clear()
        for work in self.order.picks(now):
            self._fresh[work] = None
            yield work
