"""Applies the rule for starting batches: waits, where something could run, while it says so."""

from __future__ import annotations

import attrs
import trio

from pie.activity import Activity
from pie.signals import Deadline, Signal, wait_any

from .dispatch import Asks, Batching, Dispatch, Moment, Pace
from .planner import BatchPlanner, Chunk
from .prediction import StepTime


@attrs.define(eq=False)
class Gathering:
    """What the rule goes by, and the measurements behind it."""

    rule: Dispatch
    _activity: Activity
    _planner: BatchPlanner
    _step_time: StepTime
    _changed: Signal
    """Set when a message has been handled."""
    _pace: Pace = attrs.field(factory=Pace)
    _submitted: int = 0
    _awaited: tuple[Signal, ...] = attrs.field(init=False)
    """What may change the rule's answer."""
    _batching: Batching | None = attrs.field(init=False)
    """The rule, if it is one; found once, since looking at a class takes 20 µs in Python 3.11."""

    def __attrs_post_init__(self) -> None:
        self._batching = self.rule if isinstance(self.rule, Batching) else None
        self._awaited = {
            Asks.NOTHING: (),
            Asks.QUIET: (self._activity.quiet,),
            Asks.ARRIVAL: (self._changed,),
        }[self.rule.asks]

    def submitted(self, now: float) -> None:
        """A pass has arrived."""
        self._submitted += 1
        if self._batching is not None:
            self._batching.arrived(now)

    def followed(self, now: float) -> None:
        """A pass follows another by itself: no guest was waited for."""
        if self._batching is not None:
            self._batching.arrived(now)

    @property
    def counts_passes(self) -> bool:
        """Whether the rule says how many passes each batch has, of those that arrived by then."""
        return self._batching is not None

    async def wait(self) -> None:
        """The executor is free and something could run: return when it should."""
        began = now = trio.current_time()
        settle = self._pace.learn(self._activity.busy_seconds(now), self._submitted)
        while True:
            until = now + self.rule.pause(self._moment(now - began, settle))
            if until <= now:  # also if it is less than the clock can tell apart
                return
            self._changed.clear()
            await wait_any((*self._awaited, Deadline(until)))
            now = trio.current_time()

    def _moment(self, waited: float, settle_seconds: float) -> Moment:
        ready, rows = self._planner.supply()
        return Moment(
            ready=ready,
            room=self._planner.step_tokens - rows,
            moving=self._activity.moving,
            waited=waited,
            settle_seconds=settle_seconds,
            overhead=self._step_time.overhead,
        )

    def limited(self, step: list[Chunk]) -> list[Chunk]:
        """As much of a step as the rule lets into a batch."""
        return step if self._batching is None else step[: self._batching.limit()]

    def seconds(self, step: list[Chunk]) -> float:
        """Predicted, of a step."""
        rows, slots = sum(chunk.count for chunk in step), sum(chunk.slots for chunk in step)
        return self._step_time.seconds(len(step), rows, slots)

    def ended(self, step: list[Chunk], rows: int, slots: int, seconds: float) -> None:
        """A step of so many rows over so many KV slots took so long."""
        self._step_time.learn(len(step), rows, slots, seconds)
        if self._batching is not None:
            self._batching.ended(len(step), seconds)
