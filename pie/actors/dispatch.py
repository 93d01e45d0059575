"""When a batch starts: one rule for use, and four others to measure it against. A pure core.

The executor is free and something is ready. Whoever starts a batch now pays a step's *overhead*
(what it costs beside its rows: reading the weights, launching kernels) once more for those who are
still on their way; whoever waits leaves the accelerator idle. `docs/scheduling.md` derives the
rule and the best throughput that any rule can reach.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol, runtime_checkable

import attrs

from pie.errors import UsageError


@attrs.frozen(kw_only=True)
class Moment:
    """What is known when the executor is free and something could run."""

    ready: int
    """Passes that the next step may contain."""
    room: int
    """Rows that a step has left beside the short ones of these."""
    moving: int
    """Guests that may still submit, and messages not yet read."""
    waited: float
    """Seconds since the executor was free and something was ready."""
    settle_seconds: float
    """Measured: seconds from one moving guest's submission to the next one's."""
    overhead: float
    """Predicted: seconds that a step costs beside its rows."""


class Asks(Enum):
    """What makes a rule look again before its time is up."""

    NOTHING = auto()
    QUIET = auto()
    """Nobody moves any more."""
    ARRIVAL = auto()


class Dispatch(Protocol):
    """A rule for starting batches."""

    @property
    def asks(self) -> Asks:
        """What else than the clock may change the answer."""
        ...

    def pause(self, moment: Moment, /) -> float:
        """Seconds to wait before asking again; at most 0: start."""
        ...


@runtime_checkable
class Batching(Dispatch, Protocol):
    """A rule that also decides, ahead of time, how many passes go into a batch."""

    def arrived(self, now: float, /) -> None:
        """A pass has been submitted."""
        ...

    def limit(self) -> int:
        """Passes in the batch that starts now."""
        ...

    def ended(self, passes: int, seconds: float, /) -> None:
        """A step is over."""
        ...


@attrs.frozen
class Gather:
    """Ours: wait for who is moving if that takes less than it gains, and decide at once.

    M movers among M + r passes need an extra step if they are not waited for. Its rows cost the
    same in either step, so the gain is the step's overhead; and as it delays the movers alone,
    their share of it. They are expected to settle one after the other at the measured rate.
    """

    asks: Asks = attrs.field(default=Asks.QUIET, init=False)

    def pause(self, moment: Moment, /) -> float:
        joining = min(moment.moving, moment.room)
        if joining <= 0:
            return 0.0
        gain = moment.overhead * joining / (moment.ready + joining)
        if joining * moment.settle_seconds > gain:
            return 0.0
        # Wrong predictions cost at most as much as right ones gain.
        return gain - moment.waited


@attrs.frozen
class Eager:
    """Start with whatever is ready."""

    asks: Asks = attrs.field(default=Asks.QUIET, init=False)

    def pause(self, moment: Moment, /) -> float:
        return 0.0


@attrs.frozen
class FixedSize:
    """Wait for `size` passes; `patience` seconds at most, or fewer guests would wait for ever."""

    size: int = 128
    patience: float = 0.1
    asks: Asks = attrs.field(default=Asks.ARRIVAL, init=False)

    def pause(self, moment: Moment, /) -> float:
        return 0.0 if moment.ready >= self.size else self.patience - moment.waited


@attrs.frozen
class FixedWait:
    """Wait `seconds` from the first ready pass on, whatever happens."""

    seconds: float = 0.005
    asks: Asks = attrs.field(default=Asks.NOTHING, init=False)

    def pause(self, moment: Moment, /) -> float:
        return self.seconds - moment.waited


@attrs.define(eq=False)
class Adaptive:
    """The published system's rule, from the description of its behaviour.

    Arrivals are put into one open batch. It is closed when it has `most` passes, when it has been
    open for `patience`, when nothing is on the accelerator, or, from `least` passes on, when one
    more pass is not expected to improve passes per second: size / latency against (size + 1) /
    (latency of that + expected time to the next arrival). Up to `in_flight` closed batches wait
    at the accelerator, so a batch may be closed long before it can start. There is no chunked
    prefill and no view of who is about to submit.

    Latencies are predicted as 10 ms + 1 ms per pass, times a running mean of how wrong that was.
    """

    least: int = 8
    most: int = 128
    in_flight: int = 3
    patience: float = 0.05
    arrival_weight: float = 0.3
    latency_weight: float = 0.2
    asks: Asks = attrs.field(default=Asks.NOTHING, init=False)
    _open: int = 0
    _opened_at: float = 0.0
    _closed: deque[int] = attrs.field(factory=deque)
    _last_arrival: float | None = None
    _between: float | None = None
    _correction: float = 1.0
    _running: bool = False

    def pause(self, moment: Moment, /) -> float:
        return 0.0  # nothing is on the accelerator

    def arrived(self, now: float, /) -> None:
        if self._last_arrival is not None:
            between = now - self._last_arrival
            mean = between if self._between is None else self._between
            self._between = mean + self.arrival_weight * (between - mean)
        self._last_arrival = now
        if self._open == 0:
            self._opened_at = now
        self._open += 1
        flying = 1 + len(self._closed)
        if self._running and flying < self.in_flight and self._fires(now):
            self._closed.append(self._open)
            self._open = 0

    def _fires(self, now: float) -> bool:
        size = self._open
        if size >= self.most or now - self._opened_at >= self.patience:
            return True
        if size < self.least:
            return False
        if self._between is None:
            return True
        return size / self._latency(size) >= (size + 1) / (self._latency(size + 1) + self._between)

    def _latency(self, size: int) -> float:
        return self._correction * (0.010 + 0.001 * size)

    def limit(self) -> int:
        self._running = True
        if self._closed:
            return self._closed.popleft()
        size = min(self._open, self.most)
        self._open -= size
        return max(1, size)

    def ended(self, passes: int, seconds: float, /) -> None:
        self._running = False
        wrong = seconds / (0.010 + 0.001 * passes)
        self._correction += self.latency_weight * (wrong - self._correction)


POLICIES: dict[str, Callable[[], Dispatch]] = {
    "gather": Gather,
    "eager": Eager,
    "fixed-size": FixedSize,
    "fixed-wait": FixedWait,
    "adaptive": Adaptive,
}


def dispatch_named(name: str) -> Dispatch:
    """The rule of that name. UsageError if there is none."""
    make = POLICIES.get(name)
    if make is None:
        raise UsageError(f"scheduling.dispatch is {name!r}; it may be {', '.join(POLICIES)}")
    return make()


KEEP = 0.9
"""Weight that is left of the settling before a batch after the next one: ten batches count."""


@attrs.define(eq=False)
class Pace:
    """How fast moving guests submit, of late: seconds in which any moved, per pass submitted."""

    _seconds: float = 0.0
    _passes: float = 0.0
    _seen: tuple[float, int] = (0.0, 0)

    def learn(self, busy_seconds: float, passes: int) -> float:
        """`settle_seconds` from running totals; 0 as long as nothing was submitted."""
        seconds, count = self._seen
        self._seen = busy_seconds, passes
        self._seconds = KEEP * self._seconds + busy_seconds - seconds
        self._passes = KEEP * self._passes + passes - count
        return self._seconds / self._passes if self._passes > 0 else 0.0


def best_throughput(
    guests: int, step_seconds: Callable[[float], float], host_seconds: float
) -> float:
    """Tokens per second that no rule can exceed for `guests` looping guests.

    `step_seconds(n)` of a step with n rows is convex; `host_seconds` of one processor pass
    between a guest's answer and its next submission. Derived in `docs/scheduling.md`: whoever is
    in two consecutive steps passes the host between them, one after the other, so steps of n rows
    on average leave the accelerator idle for (2 n - guests) * host_seconds each.
    """
    best = 0.0
    for rows in range(1, guests + 1):
        idle = host_seconds * max(0, 2 * rows - guests)
        best = max(best, rows / (step_seconds(rows) + idle))
    return min(best, 1 / host_seconds if host_seconds else math.inf)
