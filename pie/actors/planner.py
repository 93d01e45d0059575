"""Which passes, or pieces of passes, make up the next step. A pure core: no clock, no channel.

A batch must equal running its passes one after the other (contract K5), which the order between
pending passes guarantees; what is left to choose is who goes first when not all fit: see
`fairness.py`. Long inputs are split over steps and keep a share of every step, so that neither
they nor short decode passes wait for the other kind; how much they may lengthen it says
`allowance.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import attrs

from pie.ids import InstanceId
from pie.probes import sometimes

from .allowance import Allowance
from .fairness import FairOrder
from .passes import Pending, PendingCommand, PendingPass
from .prediction import StepTime
from .ready import ReadyLine

SHORT = 32
"""A pass with at most this many rows left runs whole; longer ones may be split."""
LONG_SHARE = 0.25
"""Part of a step kept for long passes while there are any."""


@attrs.define(eq=False)
class Chunk:
    """Inputs `first` to `first + count` of a pass, run in one step."""

    work: PendingPass
    first: int
    count: int

    @property
    def last(self) -> bool:
        """Whether the pass is complete with this chunk."""
        return self.first + self.count == self.work.inputs

    @property
    def slots(self) -> int:
        """KV slots of the pass after this chunk."""
        return self.work.work.length - self.work.inputs + self.first + self.count


@attrs.define(eq=False)
class _Step:
    """A step in the making."""

    budget: int
    short: int
    chunks: list[Chunk] = attrs.field(factory=list)
    complete: set[Pending] = attrs.field(factory=set)
    taken: set[Pending] = attrs.field(factory=set)

    def take(self, work: Pending, *, whole: bool) -> bool:
        """Put a pass in, behind those it goes along with; True if it is in to its end.

        With `whole`, only short ones that fit.
        """
        if work in self.complete:
            return True
        if work in self.taken or not work.ready or not isinstance(work, PendingPass):
            return False
        if whole and work.remaining > self.short:
            return False
        if work.along and not self._clear(work.along, whole=whole):
            return False
        count = min(work.remaining, self.budget)
        if count == 0 or (whole and count < work.remaining):
            return False
        self.budget -= count
        if count < work.remaining:
            sometimes("a long pass is split over steps")
        chunk = Chunk(work, work.done, count)
        self.chunks.append(chunk)
        self.taken.add(work)
        if chunk.last:
            self.complete.add(work)
        return chunk.last

    def _clear(self, along: Iterable[Pending], *, whole: bool) -> bool:
        earlier = sorted(along, key=lambda other: other.sequence)
        return all(self.take(other, whole=whole) for other in earlier)


@attrs.define(eq=False)
class BatchPlanner:
    """The passes that are pending, and the choice among them."""

    step_tokens: int
    ageing_seconds: float
    user_of: Callable[[InstanceId], str] = str
    allowance: Allowance = attrs.field(factory=lambda: Allowance(StepTime(), math.inf))
    _shorts: ReadyLine = attrs.field(init=False)
    _longs: ReadyLine = attrs.field(init=False)
    _pending: dict[PendingPass, None] = attrs.field(factory=dict)
    _commands: dict[PendingCommand, None] = attrs.field(factory=dict)
    _changes: list[Pending] = attrs.field(factory=list)
    """Of what is pending, what may stand in the wrong line."""

    _short_budget: int = attrs.field(init=False)
    """Rows of a step for short passes while there are long ones."""
    _short: int = attrs.field(init=False)
    """Rows of a short pass at most."""

    def __attrs_post_init__(self) -> None:
        self._short_budget = self.step_tokens - max(1, int(self.step_tokens * LONG_SHARE))
        self._short = min(SHORT, self._short_budget)
        self._shorts = ReadyLine(FairOrder(self.user_of, self.ageing_seconds))
        self._longs = ReadyLine(FairOrder(self.user_of, self.ageing_seconds))

    def add(self, work: Pending) -> None:
        if isinstance(work, PendingPass):
            self._pending[work] = None
            work.changes = self._changes
            if work.ready:
                self._line(work).put(work)
        elif isinstance(work, PendingCommand):
            self._commands[work] = None

    def ran(self, chunk: Chunk) -> None:
        """A step with this chunk is over."""
        chunk.work.remaining -= chunk.count
        chunk.work.note()

    def remove(self, work: Pending) -> None:
        if isinstance(work, PendingPass):
            self._pending.pop(work, None)
            work.changes = None
            self._shorts.drop(work)
            self._longs.drop(work)
        elif isinstance(work, PendingCommand):
            self._commands.pop(work, None)

    def _line(self, work: PendingPass) -> ReadyLine:
        return self._shorts if work.remaining <= self._short else self._longs

    def _catch_up(self) -> None:
        """Put what has changed into its line."""
        if self._changes:
            for work in self._changes:
                if isinstance(work, PendingPass) and work in self._pending:
                    line = self._line(work)
                    if line is self._shorts:
                        self._longs.drop(work)  # it has run to its last rows
                    if work.ready:
                        line.put(work)
                    else:
                        line.drop(work)
            self._changes.clear()

    def __iter__(self) -> Iterator[Pending]:
        yield from self._pending
        yield from self._commands

    def __len__(self) -> int:
        return len(self._pending) + len(self._commands)

    def has_work(self) -> bool:
        """Whether a step could be made or a command run now."""
        self._catch_up()
        return bool(self._shorts.passes or self._longs.passes or self.next_command())

    def next_command(self) -> PendingCommand | None:
        """The first command that waits for nothing, the most urgent first."""
        ready = (work for work in self._commands if work.ready and not work.along)
        return min(ready, key=lambda work: (-work.priority, work.sequence), default=None)

    def supply(self) -> tuple[int, int]:
        """Passes that are ready, and the rows of the short ones among them."""
        self._catch_up()
        return len(self._shorts.passes) + len(self._longs.passes), self._shorts.rows

    def next_step(self, now: float, moving: int = 0) -> list[Chunk]:
        """The chunks of the next step, in order of submission; empty when nothing is ready.

        `moving` guests may submit short passes while it runs.
        """
        self._catch_up()
        longs = bool(self._longs.passes)
        step = _Step(self._short_budget if longs else self.step_tokens, self._short)
        self._take_shorts(step, now)
        if longs:
            step.budget += self.step_tokens - self._short_budget
            self._take_longs(step, now, moving)
            if step.budget:
                self._take_shorts(step, now)
        return sorted(step.chunks, key=lambda chunk: chunk.work.sequence)

    def _take_shorts(self, step: _Step, now: float) -> None:
        line = self._shorts
        taken = sum(chunk.count for chunk in step.chunks if chunk.work in line.passes)
        if line.rows - taken <= step.budget:
            line.order.clear()
            for work in line.passes:
                step.take(work, whole=True)
            return
        for work in line.picks(now):
            self._take(step, line.order, work, whole=True)
            if step.budget == 0:
                break

    def _take_longs(self, step: _Step, now: float, moving: int) -> None:
        """As many rows as are allowed beside the short passes, and fit."""
        line, left = self._longs, step.budget
        self.allowance.begin(step.chunks, moving)
        for work in line.picks(now):
            allowed = self.allowance.rows(work.work.length)
            step.budget = left if allowed is None else min(left, max(0, allowed))
            if step.budget == 0:
                break
            for chunk in self._take(step, line.order, work, whole=False):
                left -= chunk.count
                self.allowance.spend(chunk)
        step.budget = left
        if all(work in step.complete for work in line.passes):
            line.order.clear()

    def _take(
        self, step: _Step, order: FairOrder[PendingPass], work: PendingPass, *, whole: bool
    ) -> list[Chunk]:
        """Put a pass in with those it goes along with, at the cost of their instances."""
        before = len(step.chunks)
        if work in self._pending:
            step.take(work, whole=whole)
        taken = step.chunks[before:]
        for chunk in taken:
            order.charge(chunk.work, chunk.count, complete=chunk.last)
        return taken
