"""Histograms that cost a fraction of a microsecond per value."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

import attrs
from prometheus_client.utils import floatToGoString


def _decades(first: int, last: int, steps: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(f"{step}e{power}") for power in range(first, last + 1) for step in steps)


SECONDS = (*_decades(-4, 0, (1, 1.5, 2, 3, 5, 7)), 10.0, 20.0, 30.0, 60.0, 120.0)
"""For what takes from 0.1 ms to two minutes."""
STEP_SECONDS = (
    *_decades(-3, 0, (1, 1.2, 1.5, 1.8, 2.2, 2.7, 3.3, 3.9, 4.7, 5.6, 6.8, 8.2)),
    *(10.0, 20.0, 30.0, 60.0, 120.0),
)
"""For steps, all of which may take the same: percentiles are right to a tenth."""
ROWS = tuple(float(1 << power) for power in range(13))
FEW = 8
"""So many values are counted faster one by one."""


@attrs.define(eq=False)
class Buckets:
    """Counts values by the first of `bounds` that is not below them.

    The histogram of prometheus-client takes locks, and six times as long.
    """

    bounds: tuple[float, ...]
    counts: list[int] = attrs.field(init=False)
    """Of each bound, and of what is beyond the last."""
    total: float = attrs.field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add_since(self, moments: Sequence[float], now: float) -> None:
        """The times from `moments`, which are in order, to `now`; cheap for many."""
        if len(moments) < FEW:
            for moment in moments:
                self.add(now - moment)
            return
        bounds, counts, left = self.bounds, self.counts, len(moments)
        most = bisect_left(bounds, now - moments[0])
        for index in range(bisect_left(bounds, now - moments[-1]), most):
            older = bisect_left(moments, now - bounds[index])
            counts[index] += left - older
            left = older
        counts[most] += left
        # Rounding may not make it smaller: that would look like a new beginning.
        self.total += max(0.0, now * len(moments) - sum(moments))

    @property
    def count(self) -> int:
        """How many values there have been."""
        return sum(self.counts)

    def cumulative(self) -> list[tuple[str, float]]:
        """How many values are at most each bound, as Prometheus wants it."""
        names = [*map(floatToGoString, self.bounds), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))
