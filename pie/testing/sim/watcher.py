"""Watches a model's scheduler: writes down what happens, and checks what must always be true."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from zlib import crc32

import attrs
import trio

from pie.actors.decodings import PendingDecoding
from pie.actors.ledger import Ledger
from pie.actors.passes import Pending, PendingPass
from pie.actors.planner import Chunk
from pie.batch import Batch
from pie.errors import PieError
from pie.ids import InstanceId, QueueId
from pie.mailbox import Ask
from pie.messages import (
    AllocatePointers,
    EndInstance,
    ExportPointers,
    FreePointers,
    ImportPointers,
    ReleaseExport,
    SchedulerMessage,
    SharePages,
    Synchronize,
)

from .journal import Journal
from .machine import Machine
from .promises import Promises

PATIENCE_STEPS = 20
"""Of the slowest step so far: so long may the oldest be passed over, beside ageing."""


@attrs.define(eq=False)
class Watcher:
    """A `pie.actors.observer.Observer`. An AssertionError out of it is a broken invariant."""

    journal: Journal
    machine: Machine
    reached: Counter[str]
    _ledger: Ledger = attrs.field(init=False)
    _lines: dict[tuple[InstanceId, QueueId], deque[Pending]] = attrs.field(factory=dict)
    """What of each queue is not finished, in order of submission."""
    _asked: list[SchedulerMessage] = attrs.field(factory=list)
    _passed_over: tuple[InstanceId | None, float] = (None, 0.0)
    """The oldest instance with a runnable pass that was in no step, and since when."""
    _began: float = 0.0
    _slowest: float = 0.0
    finished_passes: int = 0
    _promises: Promises = attrs.field(factory=Promises)

    def opened(self, ledger: Ledger, /) -> None:
        self._ledger = ledger

    def took(self, message: SchedulerMessage, /) -> None:
        self.journal.note(_words(message))
        self._asked.append(message)
        line: Iterable[Pending] = ()
        if isinstance(message, Synchronize):
            line = self._lines.get((message.instance, message.queue), ())
        self._promises.took(message, line, self._ledger.table)
        self.check()

    def submitted(self, work: Pending, /) -> None:
        self._lines.setdefault((work.instance, work.queue), deque()).append(work)
        waits = sorted(other.sequence for other in (*work.after, *work.along))
        self.journal.note(f"submitted {_name(work)} behind {waits}")
        self._promises.submitted(work)
        if isinstance(work, PendingPass) and work.copies:
            self.reached["a page to be copied on write"] += 1

    def began(self, step: Sequence[Chunk], batch: Batch, /) -> None:
        parts = [(c.work.sequence, c.first, c.count) for c in step]
        self.journal.note(f"step {parts} batch {_digest(batch):08x}")
        self._began = trio.current_time()
        self._promises.began(step)
        self._check_order(step)
        self._check_oldest(step)
        self.check()
        self._reach(step, batch)

    def followed(self, step: Sequence[Chunk], batch: Batch, /) -> None:
        parts = [chunk.work.sequence for chunk in step]
        self.journal.note(f"followed by {parts} batch {_digest(batch):08x}")
        self._began = trio.current_time()
        self.reached["a step that the device goes on to"] += 1
        self.check()

    def ended(self, step: Sequence[Chunk], lost: PieError | None, /) -> None:
        self._slowest = max(self._slowest, trio.current_time() - self._began)
        self.journal.note("step ended" if lost is None else f"step lost: {lost}")
        if lost is not None:
            self._promises.lost(step)
        if lost is not None:
            several = len({chunk.work.instance for chunk in step}) > 1
            self.reached["a lost batch of several" if several else "a lost batch"] += 1
        self.check()

    def proceeded(self, work: PendingDecoding, /) -> None:
        self.journal.note(f"proceeded {_name(work)} after {work.work.inputs[0]}")
        assert not work.finished, f"{_name(work)} goes on after its end"
        assert len(work.token.feed.tokens) == work.drawn < work.token.steps, "a token was lost"
        self.reached["a pass that follows by itself"] += 1
        self.check()

    def finished(self, work: Pending, /) -> None:
        line = self._lines[work.instance, work.queue]
        assert work in line, f"{_name(work)} was answered twice, or never submitted"
        if isinstance(work, PendingDecoding) and work.taken is not None:
            self.reached["a decoding that is cancelled"] += 1
        if work.error is None:
            assert line[0] is work, f"{_name(work)} overtook {_name(line[0])} of its queue"
        else:
            self.reached[f"a pass that fails: {type(work.error).__name__}"] += 1
        line.remove(work)
        self._promises.finished(work)
        self.finished_passes += 1
        error = "" if work.error is None else f": {work.error}"
        self.journal.note(f"finished {_name(work)} {_result(work)}{error}")
        assert work.token.reply.ready(), f"{_name(work)} is finished and not answered"
        self.check()

    def moved_out(self, numbers: Sequence[int], /) -> None:
        self.journal.note(f"moved out {list(numbers)}")
        self.reached["pages moved out"] += 1

    def moved_back(self, numbers: Sequence[int], /) -> None:
        self.journal.note(f"moved back {list(numbers)}")
        self.reached["pages moved back"] += 1

    # ------------------------------------------------------------------ invariants

    def check(self) -> None:
        """Pages add up, none is owned twice, reference counts equal referrers."""
        self._ledger.table.check(list(self._ledger.planner))
        self._promises.check(self._ledger.table.room)

    def _check_order(self, step: Sequence[Chunk]) -> None:
        """First in, first out: whatever is before a chunk in its queue ends by this step."""
        complete = {chunk.work for chunk in step if chunk.last and not chunk.work.continues}
        for chunk in step:
            for earlier in self._lines[chunk.work.instance, chunk.work.queue]:
                if earlier is chunk.work:
                    break
                assert earlier in complete, (
                    f"{_name(chunk.work)} runs before {_name(earlier)} of its queue"
                )

    def _check_oldest(self, step: Sequence[Chunk]) -> None:
        """The oldest instance that could run is not passed over for long."""
        runnable = [
            work.instance
            for work in self._ledger.planner
            if isinstance(work, PendingPass) and work.ready
        ]
        oldest = min(runnable, default=None)
        now = trio.current_time()
        if oldest is None or any(chunk.work.instance == oldest for chunk in step):
            self._passed_over = (None, now)
            return
        if self._passed_over[0] != oldest:
            self._passed_over = (oldest, now)
        waited = now - self._passed_over[1]
        limit = 8 * self.machine.ageing_seconds + PATIENCE_STEPS * self._slowest
        assert waited <= limit, (
            f"instance {oldest}, the oldest that can run, was in no step for {waited:.3g} s"
        )

    def _reach(self, step: Sequence[Chunk], batch: Batch) -> None:
        reached = self.reached
        reached["a pass split over steps"] += any(c.count < c.work.inputs for c in step)
        reached["a page copied"] += bool(len(batch.copy_targets))
        reached["a page cleared"] += bool(len(batch.cleared_pages))
        reached["a full step"] += batch.rows >= self.machine.step_tokens
        reached["passes of one instance that share a step"] += len(step) > len(
            {chunk.work.instance for chunk in step}
        )

    def state(self) -> str:
        """What is pending, and who waits for room."""
        ledger = self._ledger
        room = ledger.table.room
        requests = [
            f"{type(request).__name__} of instance {request.instance} for {request.wanted()}"
            for kind in ledger.table.pools
            for request in (room.first(kind), *room.behind_first(kind))
            if request is not None
        ]
        pending = [_name(work) for work in ledger.planner]
        return f"in line: {requests or 'nobody'}; pending: {pending or 'nothing'}"

    def check_empty(self, *, exports: bool) -> None:
        """Nothing is pending and nobody is left; `exports` may be."""
        left = [_name(work) for line in self._lines.values() for work in line]
        assert not left, f"never finished: {', '.join(left)}"
        unanswered = [_words(message) for message in self._asked if not _answered(message)]
        assert not unanswered, f"never answered: {'; '.join(unanswered)}"
        self._asked.clear()  # errors in replies hold frames, and these what they used
        ledger = self._ledger
        table = ledger.table
        table.check(list(ledger.planner))
        assert len(ledger) == 0, f"{len(ledger)} instances are left in the scheduler"
        assert len(ledger.planner) == 0, f"{len(ledger.planner)} pieces of work are left"
        assert table.waiting() == 0, f"{table.waiting()} requests for memory are left"
        if exports:
            return
        for kind, pool in table.pools.items():
            lost = pool.capacity - len(pool.free)
            assert not lost, f"{lost} of kind {kind.name} were never given back"
        assert not table.room.host.used, f"{table.room.host.used} host pages were never given back"


def _answered(message: SchedulerMessage) -> bool:
    return not isinstance(message, Ask) or message.reply.ready()


def _name(work: Pending) -> str:
    kind = "pass" if isinstance(work, PendingPass) else "command"
    return f"{kind} {work.sequence} of instance {work.instance}.{work.queue}"


def _result(work: Pending) -> str:
    """Sampled tokens, and the ids of distributions."""
    if isinstance(work, PendingDecoding):
        return str(work.token.feed.tokens)
    if not isinstance(work, PendingPass):
        return ""
    return f"{[slot[0] if isinstance(slot, tuple) else slot for slot in work.results]}"


def _words(message: SchedulerMessage) -> str:
    """A message in words that are the same in every process."""
    name = type(message).__name__
    match message:
        case AllocatePointers(instance, kind, count, spare):
            return f"{name} {instance} {kind.name} {count}{' spare' if spare else ''}"
        case FreePointers(instance, kind, pointers):
            return f"{name} {instance} {kind.name} {list(pointers)}"
        case SharePages(instance, pointers):
            return f"{name} {instance} {list(pointers)}"
        case ExportPointers(instance, kind, pointers, entry):
            return f"{name} {instance} {kind.name} {list(pointers)} {entry!r}"
        case ImportPointers(instance, kind, entry) | ReleaseExport(instance, kind, entry):
            return f"{name} {instance} {kind.name} {entry!r}"
        case EndInstance(instance, drain):
            return f"{name} {instance} {'drain' if drain else 'drop'}"
    return f"{name} {getattr(message, 'instance', '')}"


def _digest(batch: Batch) -> int:
    """Of all that a step is made of."""
    digest = 0
    for field in attrs.fields(Batch):
        digest = crc32(getattr(batch, field.name).tobytes(), digest)
    return digest
