"""The scheduler of one model: the front door for its guests, and the maker of its batches.

Queues, pages and the plan of the next step are pure cores inside this one actor. They share a
mailbox because a guest's calls must be understood in program order: `execute` followed by
`deallocate-resources` must find the page still there (docs/decisions/0001).

Two tasks work on that state: one takes messages in, the other forms a batch whenever the executor
is free and no guest is about to submit more.
"""

from __future__ import annotations

from typing import Any, assert_never

import attrs
import trio

from pie.activity import Activity, Mover
from pie.batch import ModelInfo
from pie.config import Scheduling
from pie.errors import Closed, OutOfResources, PassFailed, PieError
from pie.ids import InstanceId, QueueId, ResourceKind
from pie.mailbox import Ask, answering, ask, draining
from pie.messages import (
    AllocatePointers,
    DescribeService,
    EndInstance,
    ExecutorMessage,
    ExportPointers,
    FreePointers,
    ImportPointers,
    ListExports,
    OpenInstance,
    ReleaseExport,
    RunBatch,
    RunCommand,
    SchedulerMessage,
    ServiceStats,
    SubmitPass,
    Synchronize,
)
from pie.signals import Deadline, Signal, wait_any

from .commands import Commands
from .packing import Packer, result_of
from .pages import PageTable
from .passes import (
    Pending,
    PendingCommand,
    PendingPass,
    check_spoiled,
    order_by_pages,
    order_by_slots,
    spoil,
)
from .planner import BatchPlanner, Chunk
from .prediction import StepTime
from .queue import Barrier, CommandQueue
from .relocation import Relocation

SETTLE_SLICE = 64
"""Passes answered before other tasks get a turn: more was measured as loop latency."""


@attrs.define(eq=False)
class Owner:
    """What the scheduler knows of an instance."""

    user: str
    seed: int
    mover: Mover
    queues: dict[QueueId, CommandQueue] = attrs.field(factory=dict)
    unfinished: int = 0
    unmet: dict[QueueId, PieError] = attrs.field(factory=dict)
    """The last failure on each queue that the guest has not been told of (F7)."""
    draining: EndInstance | None = None


@attrs.define(eq=False)
class Counters:
    """What adds up to a ServiceStats."""

    batches: int = 0
    rows: int = 0
    passes: int = 0
    sampled: int = 0
    decode_batches: int = 0
    decode_rows: int = 0
    busy_seconds: float = 0.0

    def count(self, step: list[Chunk], sampled: int, seconds: float) -> None:
        rows = sum(chunk.count for chunk in step)
        self.batches += 1
        self.rows += rows
        self.sampled += sampled
        self.busy_seconds += seconds
        if rows == len(step):
            self.decode_batches += 1
            self.decode_rows += rows


class Scheduler:
    """Sole owner of a model's queues, pages and plan."""

    def __init__(
        self,
        mailbox: trio.MemoryReceiveChannel[SchedulerMessage],
        executor: trio.MemorySendChannel[ExecutorMessage],
        info: ModelInfo,
        activity: Activity,
        config: Scheduling,
    ) -> None:
        self._mailbox = mailbox
        self._executor = executor
        self._activity = activity
        self._page_size = info.page_size
        self._table = PageTable(
            info.page_size,
            info.pages,
            info.embedding_slots,
            adapter_slots=info.adapters.slots if info.adapters else 0,
            host_pages=info.pages if config.host_pages is None else config.host_pages,
        )
        self._relocation = Relocation(self._table, executor)
        self._commands = Commands(self._table, executor)
        self._planner = BatchPlanner(config.step_tokens, config.ageing_seconds)
        self._step_time = StepTime()
        self._owners: dict[InstanceId, Owner] = {}
        self._sequence = 0
        self._changed = Signal()
        self._settled = Signal()
        self._counters = Counters()

    async def run(self) -> None:
        with draining(self._mailbox), self._executor:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._form_batches)
                async for message in self._mailbox:
                    self._take(message)
                    self._take_waiting()
                    self._tell_answers()
                    self._changed.set()
                await self._finish_running()
                nursery.cancel_scope.cancel()

    async def _finish_running(self) -> None:
        """Nobody is left to talk to: drop what waits, and let a running step end."""
        for instance in list(self._owners):
            self._drop(instance)
        self._tell_answers()
        while len(self._planner):
            self._settled.clear()
            await wait_any((self._settled,))

    # ------------------------------------------------------------------- messages

    def _take_waiting(self) -> None:
        """Handle what else has arrived: one wake-up of this task for a burst of messages."""
        while True:
            try:
                message = self._mailbox.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                return
            self._take(message)

    def _take(self, message: SchedulerMessage) -> None:
        with answering(message):
            self._handle(message)
        self._activity.stop()

    def _handle(self, message: SchedulerMessage) -> None:
        match message:
            case SubmitPass():
                self._submit(message)
            case RunCommand():
                self._command(message)
            case AllocatePointers(instance, kind, count):
                self._table.allocate(instance, kind, count, message)
            case FreePointers(instance, kind, pointers):
                self._table.free(instance, kind, pointers)
            case Synchronize(instance, queue):
                self._queue(instance, queue).append(Barrier(message))
                self._advance(instance, queue)
            case OpenInstance(instance, user, seed, mover):
                self._table.open(instance, user)
                self._owners[instance] = Owner(user, seed, mover)
            case EndInstance():
                self._end(message)
            case ExportPointers(instance, kind, pointers, name, must_be_new):
                new = must_be_new or not self._table.exported(instance, kind, name)
                if new:
                    self._table.export(instance, kind, pointers, name)
                message.reply.answer(new)
            case ImportPointers(instance, kind, name, must_exist):
                if must_exist or self._table.exported(instance, kind, name):
                    self._table.import_(instance, kind, name, message)
                else:
                    message.reply.answer(None)
            case ReleaseExport(instance, kind, name):
                self._table.release(instance, kind, name)
            case ListExports(instance, kind):
                message.reply.answer(self._table.exports(instance, kind))
            case DescribeService():
                message.reply.answer(self._stats())
            case _:
                assert_never(message)

    def _tell_answers(self) -> None:
        for answer in self._table.answers():
            asked: Ask[object] = answer.token
            if answer.error is not None:
                asked.reply.fail(answer.error)
            else:
                asked.reply.answer(answer.value)

    def _queue(self, instance: InstanceId, queue: QueueId) -> CommandQueue:
        return self._owners[instance].queues.setdefault(queue, CommandQueue())

    def _submit(self, message: SubmitPass) -> None:
        owner = self._owners[message.instance]
        queue = self._queue(message.instance, message.queue)
        self._sequence += 1
        pending = PendingPass(
            sequence=self._sequence,
            instance=message.instance,
            queue=message.queue,
            number=queue.next_number(),
            seed=owner.seed,
            priority=message.priority,
            work=message.work,
            token=message,
            submitted_at=trio.current_time(),
        )
        self._table.bind(pending)
        order_by_pages(pending, self._page_size)
        order_by_slots(pending, pending.slots())
        self._table.use(pending)
        self._enqueue(pending)
        lost = check_spoiled(pending, self._page_size)
        if lost is not None:
            pending.error = _dependent_failure(lost)
            self._finish(pending)

    def _command(self, message: RunCommand) -> None:
        self._sequence += 1
        slots = self._table.slots(message.instance, message.kind, message.pointers)
        command = PendingCommand(
            sequence=self._sequence,
            instance=message.instance,
            queue=message.queue,
            priority=message.priority,
            token=message,
            submitted_at=trio.current_time(),
            slots=slots,
            writes=message.writes,
        )
        order_by_slots(command, slots)
        self._table.use_slots(command)
        self._enqueue(command)

    def _enqueue(self, pending: Pending) -> None:
        """Behind what its queue has, and to the planner."""
        queue = self._queue(pending.instance, pending.queue)
        last = queue.last()
        if last is not None:
            pending.wait_for(last, same_step=True, data=False)
        queue.append(pending)
        self._planner.add(pending)
        self._owners[pending.instance].unfinished += 1

    def _end(self, message: EndInstance) -> None:
        owner = self._owners.get(message.instance)
        if owner is None:
            message.reply.answer(None)  # drained before
            return
        if message.drain:
            owner.draining = message
            # Its passes refer to what they need; one of them may wait for a page it held.
            self._table.drop_handles(message.instance)
            self._finish_draining(message.instance)
            return
        self._drop(message.instance)
        message.reply.answer(None)

    def _drop(self, instance: InstanceId) -> None:
        """Passes that have not started are dropped; a running step keeps its pages (R10)."""
        owner = self._owners[instance]
        if owner.draining is not None:
            owner.draining.reply.fail(Closed(f"instance {instance} has ended"))
            owner.draining = None
        for pending in reversed(self._planner.of_instance(instance)):
            pending.error = Closed(f"instance {instance} has ended")
            if not pending.running:
                self._finish(pending)
        self._forget(instance)

    def _forget(self, instance: InstanceId) -> None:
        del self._owners[instance]
        self._table.close(instance)

    def _finish_draining(self, instance: InstanceId) -> None:
        owner = self._owners.get(instance)
        if owner is None or owner.draining is None or owner.unfinished:
            return
        reply = owner.draining.reply
        self._forget(instance)
        if owner.unmet:
            reply.fail(next(iter(owner.unmet.values())))
        else:
            reply.answer(None)

    # -------------------------------------------------------------------- batches

    async def _form_batches(self) -> None:
        while True:
            await self._gather()
            await self._commands.clear_stale()
            # Nothing may wait between this and the step: what it brings back has to be in place.
            if self._table.unsettled() and await self._relocation.make_room(self._idle()):
                self._tell_answers()
                continue
            command = self._planner.next_command()
            if command is not None:
                await self._run_command(command)
                continue
            step = self._planner.next_step(trio.current_time())
            if step:
                await self._run_step(step)
            elif self._table.stuck() and not self._activity.moving:
                self._give_up_first()
            else:
                self._changed.clear()
                await wait_any((self._changed,))

    def _idle(self) -> list[InstanceId]:
        """Instances that wait for neither a pass nor pages, the longest idle first (R5)."""
        asking = self._table.room.askers()
        idle = [
            (owner.mover.stopped_at, instance)
            for instance, owner in self._owners.items()
            if not (owner.mover.moving or owner.unfinished or instance in asking)
        ]
        return [instance for _, instance in sorted(idle)]

    def _give_up_first(self) -> None:
        """No step can run, nobody moves and nothing can move out: the first in line ends (R5)."""
        for work in self._table.refuse_first():
            self._finish(work)
        self._tell_answers()

    async def _gather(self) -> None:
        """Wait for the guests that are moving, at most for as long as that can gain."""
        while not (self._planner.has_work() or self._table.unsettled()):
            self._changed.clear()
            await wait_any((self._changed,))
        gain = self._step_time.gain_of_waiting(self._activity.moving, self._planner.backlog())
        limit = trio.current_time() + gain
        while self._activity.moving and trio.current_time() < limit:
            await wait_any((self._activity.quiet, Deadline(limit)))

    async def _run_step(self, step: list[Chunk]) -> None:
        packer = Packer(self._table)
        for chunk in step:
            packer.add(chunk)
            chunk.work.running = True
        batch = packer.batch()
        began = trio.current_time()
        lost: PieError | None = None
        try:
            packer.unpack(await ask(self._executor, RunBatch(batch)))
        except PassFailed as error:
            lost = error
        seconds = trio.current_time() - began
        self._step_time.learn(batch.rows, int(batch.lengths.sum()), seconds)
        self._counters.count(step, len(batch.sampled_rows) + len(batch.ranked_rows), seconds)
        await self._settle(step, lost)

    async def _run_command(self, command: PendingCommand) -> None:
        command.running = True
        answer: Any = None
        try:
            answer = await self._commands.run(command)
        except PassFailed as error:
            command.error = command.error or error
        command.running = False
        self._finish(command, answer)
        self._settled.set()

    async def _settle(self, step: list[Chunk], lost: PieError | None) -> None:
        for count, chunk in enumerate(step, 1):
            work = chunk.work
            work.running = False
            work.done += chunk.count
            work.error = work.error or lost
            if work.error is not None or chunk.last:
                self._finish(work)
            if count % SETTLE_SLICE == 0:
                self._tell_answers()
                await trio.lowlevel.checkpoint()
        self._tell_answers()
        self._settled.set()

    def _finish(self, work: Pending, answer: Any = None) -> None:
        """Answer a pass or command, release what it used, fail what needed it if it failed."""
        needing = [later for later in work.dependents if work in later.data]
        work.retire()
        self._planner.remove(work)
        if isinstance(work, PendingPass):
            self._table.finish(work)
            self._counters.passes += 1
            answer = result_of(work)
        elif isinstance(work, PendingCommand):
            self._table.finish_command(work)
        asked: Ask[Any] = work.token
        owner = self._owners.get(work.instance)
        if work.error is None:
            asked.reply.answer(answer)
        else:
            asked.reply.fail(work.error)
            self._fail_dependents(work, needing)
            if isinstance(work, PendingPass):
                spoil(work, work.error, self._page_size)
            if owner is not None and isinstance(work.error, PassFailed | OutOfResources):
                owner.unmet[work.queue] = work.error
        if owner is not None:
            owner.unfinished -= 1
            self._advance(work.instance, work.queue)
            self._finish_draining(work.instance)

    def _fail_dependents(self, work: Pending, needing: list[Pending]) -> None:
        for later in needing:
            if later.instance != work.instance or later.error is not None:
                continue
            later.error = _dependent_failure(work.error)
            if not later.running:
                self._finish(later)

    def _advance(self, instance: InstanceId, queue: QueueId) -> None:
        owner = self._owners[instance]
        for token, good in owner.queues[queue].advance():
            barrier: Synchronize = token
            barrier.reply.answer(good)
            if not good:
                owner.unmet.pop(queue, None)

    def _stats(self) -> ServiceStats:
        pages = self._table.pools[ResourceKind.KV_PAGE]
        embeddings = self._table.pools[ResourceKind.EMBEDDING]
        counters = attrs.asdict(self._counters)
        return ServiceStats(
            **counters,
            pages=pages.capacity,
            pages_free=len(pages.free),
            pages_peak=pages.capacity - pages.least_free,
            host_pages=self._table.room.host.capacity,
            host_pages_free=len(self._table.room.host.free),
            moved_out=self._relocation.moved_out,
            embeddings_free=len(embeddings.free),
            waiting=self._table.waiting(),
            queued=len(self._planner),
            instances=len(self._owners),
        )


def _dependent_failure(error: PieError | None) -> PassFailed:
    """What a pass is told that reads the results of a failed one; the first reason once."""
    return (
        error
        if isinstance(error, _ReadsFailed)
        else _ReadsFailed(f"a pass whose results it reads failed: {error}")
    )


class _ReadsFailed(PassFailed):
    """A pass failed because of another one."""
