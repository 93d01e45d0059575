"""Records what one model's scheduler does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import trio

from pie.actors.decodings import PendingDecoding
from pie.actors.ledger import Ledger
from pie.actors.passes import Pending, PendingPass
from pie.actors.planner import Chunk
from pie.batch import Batch
from pie.errors import PieError
from pie.ids import InstanceId, ResourceKind
from pie.messages import ForwardPass, SchedulerMessage

from .format import Event, FollowRecord, Kind, PassRecord
from .guests import Guest
from .requests import REQUESTS, TELLS, Asked


class Recorder(Protocol):
    """What is common to the models of an engine: its instances, and the file."""

    def put(self, event: Event, /) -> None:
        """Write an event."""

    def guest(self, instance: InstanceId, /) -> Guest:
        """What is known of an instance."""
        ...

    def request(self, guest: Guest, now: float, /) -> tuple[int, list[int], float, float]:
        """A new request: its number, the answers before it, its delay and think time."""
        ...

    def hear(self, guest: Guest, now: float, /) -> None:
        """Note which of its questions have been answered by now."""

    def lane(self, guest: Guest, model: int, queue: int, /) -> int:
        """A track of a queue that is free."""
        ...


class ModelTrace:
    """The part of a trace that is about one model: an `Observer` of its scheduler."""

    def __init__(self, tracer: Recorder, index: int, pid: int, executor: int) -> None:
        self._tracer, self._index = tracer, index
        self._pid, self._executor = pid, executor
        self._open: dict[Pending, PassRecord | FollowRecord] = {}
        self._batches = 0
        self._began = 0.0
        self._sizes = (0, 0, 0)
        self._first: list[int] = []
        self._counts = (-1, -1, -1)
        self._draining: set[InstanceId] = set()
        """Instances that have been told to end; they will be told twice."""

    def opened(self, ledger: Ledger, /) -> None:
        self._table = ledger.table
        self._show_pages(trio.current_time())

    def took(self, message: SchedulerMessage, /) -> None:
        describe = REQUESTS.get(type(message))
        if describe is None:
            return  # a pass or command, which `submitted` is for, or nothing to replay
        name, facts = describe(message)
        instance = facts["instance"]
        if name == "end":
            if facts["drain"]:
                self._draining.add(instance)
            elif instance in self._draining:
                self._draining.discard(instance)
                return  # its end has been recorded
        now = trio.current_time()
        guest = self._tracer.guest(instance)
        op, waited, delay, think = self._tracer.request(guest, now)
        timing = {"op": op, "model": self._index, "waited": waited, "delay": delay, "think": think}
        if type(message) in TELLS:
            args = timing | facts
            self._tracer.put((Kind.INSTANT, guest.pid, guest.tid, now, name, args))
            return
        tid = self._tracer.lane(guest, self._index, -1)
        asked = Asked(op, self._index, name, message, now, tid, timing | facts)
        guest.asked.append(asked)
        self._tracer.hear(guest, now)
        if name == "end":
            self._show_pages(now)

    def submitted(self, work: Pending, /) -> None:
        now, tracer = trio.current_time(), self._tracer
        guest = tracer.guest(work.instance)
        op, waited, delay, think = tracer.request(guest, now)
        after: Sequence[int] = ()
        data: Sequence[int] = ()
        if work.after or work.along:
            after = sorted({self._open[other].op for other in (*work.after, *work.along)})
            data = sorted({self._open[other].op for other in work.data})
        tid = tracer.lane(guest, self._index, work.queue)
        asked = work.work if isinstance(work, PendingPass) else None
        record = PassRecord(
            guest, op, work.instance, work.queue, now, tid, asked, after, data, waited, delay, think
        )
        self._open[work] = record
        guest.in_flight[work] = None

    def proceeded(self, work: PendingDecoding, /) -> None:
        now, record = trio.current_time(), self._open[work]
        self._put_pass(record, now, work, {"decoding": True})
        self._open[work] = FollowRecord(
            record.guest, record.op, record.queue, now, record.tid, work.work
        )

    def finished(self, work: Pending, /) -> None:
        now, tracer = trio.current_time(), self._tracer
        record = self._open.pop(work)
        guest = record.guest  # the instance may have gone
        del guest.in_flight[work]
        guest.answers.append(record.op)
        guest.answered = now
        guest.lanes[self._index, record.queue].append(record.tid)
        if isinstance(work, PendingPass):
            more = {"decoding": True} if work.continues else None
            self._put_pass(record, now, work, more)
            return
        assert isinstance(record, PassRecord), "a command has no step that follows"
        name, args = command_facts(work)
        args |= {"op": record.op, "model": self._index, "instance": record.instance}
        args |= {"queue": record.queue, "after": [*record.after], "data": [*record.data]}
        args |= {"waited": record.waited, "delay": record.delay, "think": record.think}
        tracer.put((Kind.REQUEST, guest.pid, record.tid, record.at, now, name, args))

    def _put_pass(
        self,
        record: PassRecord | FollowRecord,
        now: float,
        work: PendingPass,
        more: dict[str, Any] | None,
    ) -> None:
        """A pass is over; `record` has what it was, for a decoding may be another by now."""
        pid, index, error = record.guest.pid, self._index, work.error
        if isinstance(record, FollowRecord):
            reason = None if error is None else str(error)
            if reason is not None or record.batch >= 0:  # else it was cancelled before
                self._tracer.put((Kind.FOLLOW, pid, index, record, now, reason))
            return
        asked, priority = record.work, work.token.priority
        assert asked is not None, "the record of a pass has it"
        if error is not None:
            more = {"error": str(error)} | (more or {})
        if work.embeddings or work.adapter is not None:
            more = slots_of(asked) | (more or {})
        self._tracer.put((Kind.PASS, pid, index, record, now, priority, asked, more))

    # ------------------------------------------------------------------- batches

    def began(self, step: Sequence[Chunk], batch: Batch, /) -> None:
        self._began = trio.current_time()
        self._sizes = (batch.rows, len(step), int(batch.lengths.sum()))
        first = self._first = []
        for chunk in step:
            record = self._open[chunk.work]
            record.steps += 1
            if record.batch < 0:
                record.batch = self._batches
                if isinstance(record, PassRecord):
                    first.append(record.op)

    def followed(self, step: Sequence[Chunk], batch: Batch, /) -> None:
        self.began(step, batch)

    def ended(self, step: Sequence[Chunk], lost: PieError | None, /) -> None:
        now = trio.current_time()
        number, self._batches = self._batches, self._batches + 1
        error = None if lost is None else str(lost)
        self._tracer.put(
            (
                Kind.BATCH,
                self._pid,
                self._executor,
                number,
                self._began,
                now,
                self._sizes,
                self._first,
                error,
            )
        )
        self._show_pages(now)

    def moved_out(self, numbers: Sequence[int], /) -> None:
        self._moved("moved out", len(numbers))

    def moved_back(self, numbers: Sequence[int], /) -> None:
        self._moved("moved back", len(numbers))

    def _moved(self, name: str, count: int) -> None:
        now = trio.current_time()
        args = {"pages": count}
        self._tracer.put((Kind.INSTANT, self._pid, self._executor, now, name, args))
        self._show_pages(now)

    def _show_pages(self, now: float) -> None:
        pool = self._table.pools[ResourceKind.KV_PAGE]
        free = len(pool.free)
        counts = (free, pool.capacity - free, self._table.room.host.used)
        if counts != self._counts:
            self._counts = counts
            self._tracer.put((Kind.PAGES, self._pid, now, *counts))


def slots_of(asked: ForwardPass) -> dict[str, Any]:
    """The embedding and adapter slots that a pass uses, by its instance's pointers."""
    slots = dict[str, Any]()
    reads = [-1 - value for value in asked.inputs if value < 0]
    if reads:
        slots["reads"] = reads
    if asked.stored:
        slots["stores"] = [pointer for _, pointer in asked.stored]
    if asked.adapter is not None:
        slots["adapter"] = asked.adapter
    return slots


def command_facts(work: Pending) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a command on slots."""
    message = work.token
    name = "read embeddings" if message.command is None else type(message.command).__name__
    args: dict[str, Any] = {
        "kind": int(message.kind),
        "slots": list(message.pointers),
        "writes": message.writes,
        "priority": int(message.priority),
        "command": True,
    }
    if work.error is not None:
        args["error"] = str(work.error)
    return name, args
