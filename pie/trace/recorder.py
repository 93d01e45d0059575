"""Records what an engine does: a timeline for people, and what a replay needs.

    async with tracing(Path("run.json"), config) as tracer:
        async with open_engine(models, config, observe=tracer.model, guests=tracer) as engine:
            ...

Requests that guests make of the engine are numbered in their order (`op`). Each is recorded with
the answers that its guest got since the request before, and with how long after the last of these
it came: that is what a replay repeats.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from pie import __version__
from pie.batch import ModelInfo
from pie.config import EngineConfig
from pie.ids import InstanceId
from pie.messages import Event as ClientEvent
from pie.messages import LaunchContext
from pie.offload import Offload, in_thread

from .format import ENGINE, VERSION, Kind, Lines
from .guests import Guest
from .model import ModelTrace
from .requests import Asked, answer_of
from .writer import Writer, writing


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
