"""Which passes, or pieces of passes, make up the next step. A pure core: no clock, no channel.

A batch must equal running its passes one after the other (contract K5), which the order between
pending passes guarantees; what is left to choose is urgency: priority with ageing, then age. Long
inputs are split over steps and keep a share of every step, so that neither they nor short
decode passes wait for the other kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from pie.probes import sometimes

from .passes import Pending, PendingCommand, PendingPass

SHORT = 32
"""A pass with at most this many rows left runs whole; longer ones may be split."""
LONG_SHARE = 0.25
"""Part of a step kept for long passes while there are any."""


@attrs.frozen
class Chunk:
    """Inputs `first` to `first + count` of a pass, run in one step."""

    work: PendingPass
    first: int
    count: int

    @property
    def last(self) -> bool:
        """Whether the pass is complete with this chunk."""
        return self.first + self.count == self.work.inputs


@attrs.define(eq=False)
class _Step:
    """A step in the making."""

    budget: int
    chunks: list[Chunk] = attrs.field(factory=list)
    complete: set[Pending] = attrs.field(factory=set)
    taken: set[Pending] = attrs.field(factory=set)

    def take(self, work: Pending, *, whole: bool) -> bool:
        """Put a pass in, behind those it goes along with; True if it is in to its end."""
        if work in self.complete:
            return True
        if work in self.taken or not work.ready or not isinstance(work, PendingPass):
            return False
        if not self._clear(work.along, whole=whole):
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
    _pending: dict[PendingPass, None] = attrs.field(factory=dict)
    _commands: dict[PendingCommand, None] = attrs.field(factory=dict)

    def add(self, work: Pending) -> None:
        if isinstance(work, PendingPass):
            self._pending[work] = None
        elif isinstance(work, PendingCommand):
            self._commands[work] = None

    def remove(self, work: Pending) -> None:
        if isinstance(work, PendingPass):
            self._pending.pop(work, None)
        elif isinstance(work, PendingCommand):
            self._commands.pop(work, None)

    def of_instance(self, instance: int) -> list[Pending]:
        """What of it is not finished, in order of submission."""
        mine = [work for work in self if work.instance == instance]
        return sorted(mine, key=lambda work: work.sequence)

    def __iter__(self) -> Iterator[Pending]:
        yield from self._pending
        yield from self._commands

    def __len__(self) -> int:
        return len(self._pending) + len(self._commands)

    def has_work(self) -> bool:
        """Whether a step could be made or a command run now."""
        return any(work.ready for work in self._pending) or self.next_command() is not None

    def next_command(self) -> PendingCommand | None:
        """The first command that waits for nothing, the most urgent first."""
        ready = (work for work in self._commands if work.ready and not work.along)
        return min(ready, key=lambda work: (-work.priority, work.sequence), default=None)

    def supply(self) -> tuple[int, int]:
        """Passes that are ready, and the rows of the short ones among them."""
        ready = [work.remaining for work in self._pending if work.ready]
        return len(ready), sum(rows for rows in ready if rows <= SHORT)

    def next_step(self, now: float) -> list[Chunk]:
        """The chunks of the next step, in order of submission; empty when nothing is ready."""
        ready = [work for work in self._pending if not work.after and not work.ungranted]
        if sum([work.remaining for work in ready]) <= self.step_tokens:
            return _all_of(ready)
        ready.sort(key=lambda work: self._key(work, now))
        longs = [work for work in ready if work.remaining > SHORT]
        reserve = int(self.step_tokens * LONG_SHARE) if longs else 0
        step = _Step(self.step_tokens - reserve)
        for work in ready:
            if work.remaining <= SHORT:
                step.take(work, whole=True)
        step.budget += reserve
        for work in ready:
            if step.budget == 0:
                break
            step.take(work, whole=False)
        return sorted(step.chunks, key=lambda chunk: chunk.work.sequence)

    def _key(self, work: PendingPass, now: float) -> tuple[int, int]:
        """Most urgent first: priority plus one level per ageing period waited, then age."""
        levels = int((now - work.submitted_at) / self.ageing_seconds)
        return -(work.priority + levels), work.sequence


def _all_of(ready: Iterable[PendingPass]) -> list[Chunk]:
    """All that can be in a step with room for everything; `ready` in order of submission."""
    step: list[Chunk] = []
    complete: set[Pending] = set()
    for work in ready:
        if not work.along or complete.issuperset(work.along):
            complete.add(work)
            step.append(Chunk(work, work.done, work.remaining))
    return step
