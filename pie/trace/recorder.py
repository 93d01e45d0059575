"""Records what an engine does: a timeline for people, and what a replay needs.

    async with tracing(Path("run.json"), config) as tracer:
        async with open_engine(models, config, observe=tracer.model, guests=tracer) as engine:
            ...

Requests that guests make of the engine are numbered in their order (`op`). Each is recorded with
the answers that its guest got since the request before, and with how long after the last of these
it came: that is what a replay repeats.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from pie import __version__
from pie.actors.ledger import Ledger
from pie.actors.passes import Pending, PendingPass
from pie.actors.planner import Chunk
from pie.batch import Batch, ModelInfo
from pie.config import EngineConfig
from pie.errors import PieError
from pie.ids import InstanceId, ResourceKind
from pie.messages import Event as ClientEvent
from pie.messages import LaunchContext, SchedulerMessage
from pie.offload import Offload, in_thread

from .format import ENGINE, VERSION, Kind, Lines, PassRecord
from .requests import REQUESTS, TELLS, Asked, answer_of
from .writer import Writer, writing


@attrs.define(eq=False)
class Guest:
    """An instance: what it is doing, and when its next request could have come at the earliest."""

    instance: InstanceId
    pid: int
    tid: int
    ready: float
    """When it was last seen to have what it waited for: running since then."""
    stopped: float
    """When it began to wait, if it does."""
    requested: float
    """Its last request, at first its launch."""
    answered: float
    """The last answer to it."""
    answers: list[int] = attrs.field(factory=list)
    """`op` of what was answered since its last request."""
    asked: list[Asked] = attrs.field(factory=list)
    """Unanswered questions but for passes and commands."""
    in_flight: dict[Pending, None] = attrs.field(factory=dict)
    moves: bool = False
    lanes: dict[tuple[int, int], list[int]] = attrs.field(factory=dict)
    """Free tracks of each (model, queue); -1 stands for requests about pages."""
    lane_counts: dict[tuple[int, int], int] = attrs.field(factory=dict)

    def woken_by(self) -> str:
        """What it has just got."""
        for asked in self.asked:
            if asked.message.reply.ready():
                return asked.name
        for work in self.in_flight:
            if work.token.reply.ready():
                return "pass"
        return "outside"

    def hear(self, now: float) -> list[Asked]:
        """The questions that have their answers by now."""
        heard = [asked for asked in self.asked if asked.message.reply.ready()]
        if heard:
            self.asked = [asked for asked in self.asked if asked not in heard]
            self.answers += [asked.op for asked in heard]
            self.answered = now
        return heard


class Tracer:
    """Observes an engine: `observe=tracer.model, guests=tracer`."""

    def __init__(self, writer: Writer, config: EngineConfig) -> None:
        self._writer = writer
        self._config = config
        self._guests: dict[InstanceId, Guest] = {}
        self._pids = ENGINE
        self._tids = 0
        self._ops = 0
        self._models = 0
        self.put = writer.put

    def new_process(self, name: str, fact: str, args: dict[str, Any]) -> int:
        """Number of a new group of tracks; `fact` tells a replay what it is."""
        self._pids += 1
        pid = self._pids
        self.put((Kind.META, "process_name", pid, 0, {"name": name}))
        self.put((Kind.META, "process_sort_index", pid, 0, {"sort_index": pid}))
        self.put((Kind.META, fact, pid, 0, args))
        return pid

    def new_thread(self, pid: int, name: str) -> int:
        """Number of a new track."""
        self._tids += 1
        tid = self._tids
        self.put((Kind.META, "thread_name", pid, tid, {"name": name}))
        self.put((Kind.META, "thread_sort_index", pid, tid, {"sort_index": tid}))
        return tid

    def model(self, info: ModelInfo) -> ModelTrace:
        """The observer of one model."""
        index = self._models
        self._models += 1
        scheduling = self._config.scheduling
        facts = {
            "model": index,
            "name": info.name,
            "page_size": info.page_size,
            "pages": info.pages,
            "embedding_slots": info.embedding_slots,
            "adapter_slots": info.adapters.slots if info.adapters else 0,
            "context_length": info.context_length,
            "vocabulary": info.vocabulary,
            "scheduling": attrs.asdict(scheduling),
        }
        pid = self.new_process(f"model {info.name}", "pie_model", facts)
        return ModelTrace(self, index, pid, self.new_thread(pid, "executor"))

    def guest(self, instance: InstanceId) -> Guest:
        """What is known of an instance."""
        return self._guests[instance]

    # -------------------------------------------------------------------- guests

    def launched(self, context: LaunchContext, program: str, /) -> None:
        now, user = trio.current_time(), context.user
        facts = {"instance": context.id, "user": user, "program": program, "launched": now}
        pid = self.new_process(f"{program} {context.id} ({user})", "pie_instance", facts)
        tid = self.new_thread(pid, "guest")
        self._guests[context.id] = Guest(context.id, pid, tid, now, now, now, now)

    def moving(self, instance: InstanceId, moves: bool, /) -> None:
        guest = self._guests[instance]
        if moves == guest.moves:
            return
        guest.moves, now = moves, trio.current_time()
        if not moves:
            guest.stopped = now
            return
        if now > guest.ready:
            what = guest.woken_by()
            self.put((Kind.GUEST, guest.pid, guest.tid, guest.ready, guest.stopped, now, what))
        guest.ready = now
        if guest.asked:
            self.hear(guest, now)

    def gone(self, instance: InstanceId, last: ClientEvent, /) -> None:
        guest, now = self._guests.pop(instance), trio.current_time()
        self.hear(guest, now)
        self.put((Kind.GUEST, guest.pid, guest.tid, guest.ready, guest.stopped, now, "end"))
        args = {"event": last.code.name, "text": last.text[:200]}
        self.put((Kind.INSTANT, guest.pid, guest.tid, now, "ended", args))

    # ------------------------------------------------------------------ requests

    def request(self, guest: Guest, now: float) -> tuple[int, list[int], float, float]:
        """A new request: its number, the answers before it, its delay and think time."""
        if guest.asked:
            self.hear(guest, now)
        op = self._ops
        self._ops += 1
        waited, guest.answers = guest.answers, []
        delay = now - max(guest.answered, guest.requested)
        guest.requested = now
        return op, waited, delay, min(delay, now - guest.ready)

    def hear(self, guest: Guest, now: float) -> None:
        """Note which of its questions have been answered by now."""
        for asked in guest.hear(now):
            self.show(guest, asked, now)

    def show(self, guest: Guest, asked: Asked, now: float) -> None:
        """A question that is over."""
        args = asked.args | answer_of(asked.message)
        self.put((Kind.REQUEST, guest.pid, asked.tid, asked.at, now, asked.name, args))
        guest.lanes[asked.model, -1].append(asked.tid)

    def lane(self, guest: Guest, model: int, queue: int) -> int:
        """A track of a queue that is free, since what is on one may not overlap."""
        key = model, queue
        free = guest.lanes.get(key)
        if free:
            return free.pop()
        if free is None:
            guest.lanes[key] = []
        count = guest.lane_counts[key] = guest.lane_counts.get(key, 0) + 1
        name = "requests" if queue < 0 else f"queue {queue}"
        return self.new_thread(guest.pid, name if count == 1 else f"{name} +{count - 1}")


class ModelTrace:
    """The part of a trace that is about one model: an `Observer` of its scheduler."""

    def __init__(self, tracer: Tracer, index: int, pid: int, executor: int) -> None:
        self._tracer, self._index = tracer, index
        self._pid, self._executor = pid, executor
        self._open: dict[Pending, tuple[Guest, PassRecord]] = {}
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
        after: list[int] = []
        data: list[int] = []
        if work.after or work.along:
            after = sorted({self._open[other][1].op for other in (*work.after, *work.along)})
            data = sorted({self._open[other][1].op for other in work.data})
        tid = tracer.lane(guest, self._index, work.queue)
        record = PassRecord(
            op, work.instance, work.queue, now, tid, after, data, waited, delay, think
        )
        self._open[work] = guest, record
        guest.in_flight[work] = None

    def finished(self, work: Pending, /) -> None:
        now, tracer = trio.current_time(), self._tracer
        guest, record = self._open.pop(work)  # the instance may have gone
        del guest.in_flight[work]
        guest.answers.append(record.op)
        guest.answered = now
        guest.lanes[self._index, record.queue].append(record.tid)
        if isinstance(work, PendingPass):
            tracer.put(self._pass_event(guest, record, now, work))
            return
        name, args = command_facts(work)
        args |= {"op": record.op, "model": self._index, "instance": record.instance}
        args |= {"queue": record.queue, "after": record.after, "data": record.data}
        args |= {"waited": record.waited, "delay": record.delay, "think": record.think}
        tracer.put((Kind.REQUEST, guest.pid, record.tid, record.at, now, name, args))

    def _pass_event(
        self, guest: Guest, record: PassRecord, now: float, work: PendingPass
    ) -> tuple[Any, ...]:
        more: dict[str, Any] | None = None
        if work.error is not None:
            more = {"error": str(work.error)}
        if work.embeddings or work.adapter is not None:
            more = slots_of(work) | (more or {})
        priority = work.token.priority
        return Kind.PASS, guest.pid, self._index, record, now, priority, work.work, more

    # ------------------------------------------------------------------- batches

    def began(self, step: Sequence[Chunk], batch: Batch, /) -> None:
        self._began = trio.current_time()
        self._sizes = (batch.rows, len(step), int(batch.lengths.sum()))
        first = self._first = []
        for chunk in step:
            record = self._open[chunk.work][1]
            record.steps += 1
            if record.batch < 0:
                record.batch = self._batches
                first.append(record.op)

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


def slots_of(work: PendingPass) -> dict[str, Any]:
    """The embedding and adapter slots that a pass uses, by its instance's pointers."""
    asked, slots = work.work, dict[str, Any]()
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


@asynccontextmanager
async def tracing(
    path: Path, config: EngineConfig | None = None, *, offload: Offload = in_thread
) -> AsyncIterator[Tracer]:
    """A tracer that writes to `path`; leave the engine's context before this one.

    The file is ended and closed in every ending but a kill. UsageError if it cannot be made or
    written.
    """
    lines = Lines(trio.current_time())
    facts = {"version": VERSION, "pie": __version__, "start": trio.current_time()}
    first = lines.meta("pie_trace", ENGINE, 0, facts)[2:]
    async with writing(path, first, lines, offload) as writer:
        yield Tracer(writer, config or EngineConfig())
