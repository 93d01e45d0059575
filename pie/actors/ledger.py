"""What instances have submitted to one model, from the first word of it to the answer.

The bookkeeping of the scheduler: it never waits and sends nothing, it only answers. Whoever runs
steps takes work from `planner` and gives it back to `finish`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from pie.activity import Mover
from pie.errors import Closed, OutOfResources, PassFailed, PieError
from pie.ids import InstanceId, QueueId, ResourceKind
from pie.mailbox import Ask
from pie.messages import (
    CancelDecoding,
    EndInstance,
    OpenInstance,
    RunCommand,
    SubmitDecoding,
    SubmitPass,
    Synchronize,
)
from pie.probes import sometimes

from .decodings import PendingDecoding
from .failures import dependent_failure, fail_dependents, spoil
from .observer import Observer
from .packing import result_of
from .pages import PageTable
from .passes import Pending, PendingCommand, PendingPass
from .planner import BatchPlanner
from .queue import Barrier, CommandQueue


@attrs.define(eq=False)
class Owner:
    """What the scheduler knows of an instance."""

    user: str
    seed: int
    mover: Mover
    evict: Callable[[PieError], None]
    queues: dict[QueueId, CommandQueue] = attrs.field(factory=dict)
    unfinished: int = 0
    unmet: dict[QueueId, PieError] = attrs.field(factory=dict)
    """The last failure on each queue that the guest has not been told of (F7)."""
    draining: EndInstance | None = None

    def line(self, queue: QueueId) -> CommandQueue:
        """The queue of this number, which has no other beginning than its first use."""
        found = self.queues.get(queue)
        if found is None:
            found = self.queues[queue] = CommandQueue()
        return found


@attrs.define(eq=False)
class Ledger:
    """Instances, their queues, and what of them is not finished."""

    table: PageTable
    planner: BatchPlanner
    finished_passes: int = 0
    observer: Observer | None = None
    _owners: dict[InstanceId, Owner] = attrs.field(factory=dict)
    _sequence: int = 0

    def __len__(self) -> int:
        """How many instances there are."""
        return len(self._owners)

    @contextmanager
    def answering_all(self) -> Iterator[None]:
        """On the way out, also after a bug, tell who still waits that nobody will answer."""
        try:
            yield
        finally:
            gone = Closed("the scheduler has ended")
            for work in self.planner:
                if not work.token.reply.ready():
                    work.token.reply.fail(gone)

    def open(self, message: OpenInstance) -> None:
        self.table.open(message.instance, message.user)
        self._owners[message.instance] = Owner(
            message.user, message.seed, message.mover, message.evict
        )

    def user_of(self, instance: InstanceId) -> str:
        """Whose it is; of one that has ended, nobody's."""
        owner = self._owners.get(instance)
        return owner.user if owner is not None else ""

    def evict(self, instance: InstanceId, error: PieError) -> None:
        """End an instance that there is no memory for, whatever its guest is doing (R5)."""
        owner = self._owners.get(instance)
        if owner is not None:
            owner.evict(error)

    def idle(self) -> list[InstanceId]:
        """Instances that wait for neither a pass nor pages, the longest idle first (R5)."""
        asking = self.table.room.askers(ResourceKind.KV_PAGE)
        idle = [
            (owner.mover.stopped_at, instance)
            for instance, owner in self._owners.items()
            if not (owner.mover.moving or owner.unfinished or instance in asking)
        ]
        return [instance for _, instance in sorted(idle)]

    def all_wait(self) -> bool:
        """Whether every instance waits for a pass or for room, so that none can let go of pages."""
        asking = self.table.room.askers()
        return not any(
            owner.mover.moving or not (owner.unfinished or instance in asking)
            for instance, owner in self._owners.items()
        )

    def submit(self, message: SubmitPass | SubmitDecoding, now: float) -> None:
        owner = self._owners[message.instance]
        queue = owner.line(message.queue)
        self._sequence += 1
        make: Callable[..., PendingPass] = PendingPass
        if isinstance(message, SubmitDecoding):
            make = PendingDecoding
        pending = make(
            sequence=self._sequence,
            instance=message.instance,
            queue=message.queue,
            seed=owner.seed,
            priority=message.priority,
            work=message.work,
            token=message,
            submitted_at=now,
        )
        queue.number(pending)
        lost = self.table.binding.submit(pending)
        self._enqueue(pending, owner, queue)
        if lost is not None:
            pending.error = dependent_failure(lost)
            self.finish(pending)

    def command(self, message: RunCommand, now: float) -> None:
        self._sequence += 1
        slots = self.table.binding.slots(message.instance, message.kind, message.pointers)
        command = PendingCommand(
            sequence=self._sequence,
            instance=message.instance,
            queue=message.queue,
            priority=message.priority,
            token=message,
            submitted_at=now,
            slots=slots,
            writes=message.writes,
        )
        self.table.binding.submit_command(command)
        owner = self._owners[message.instance]
        self._enqueue(command, owner, owner.line(message.queue))

    def _enqueue(self, pending: Pending, owner: Owner, queue: CommandQueue) -> None:
        """Behind what its queue has, and to the planner."""
        last = queue.last()
        if last is not None:
            pending.wait_for(last, same_step=True, data=False)
        queue.append(pending)
        self.planner.add(pending)
        owner.unfinished += 1
        if self.observer is not None:
            self.observer.submitted(pending)

    def goes_on(self, work: PendingDecoding, tokens: Sequence[int], now: float) -> bool:
        """As many passes of a decoding have run and drawn `tokens`: True if it has another to run,
        False if it is to finish.
        """
        if not work.draw(tokens):
            return False
        self._sequence += len(tokens)
        self.finished_passes += len(tokens)
        self.table.binding.proceed(work)
        work.proceed(tokens[-1], len(tokens), self._sequence, now)
        return True

    def cancel(self, message: CancelDecoding) -> None:
        """End a decoding; what it has drawn and nobody has taken does not count."""
        asked = message.decoding
        owner = self._owners.get(asked.instance)
        if owner is None:
            return
        for work in self.table.users.instance(asked.instance):
            if work.token is asked:
                assert isinstance(work, PendingDecoding)
                work.taken = message.taken
                if work.running or work.after or work.along or work.copies:
                    sometimes("a decoding is cancelled that has to run or wait first")
                else:
                    self.finish(work)  # else in its turn: what is behind it must not overtake
                return
        owner.queues[asked.queue].recount(asked, message.taken)
        if asked.reply.error is not None and asked.reply.error is owner.unmet.get(asked.queue):
            del owner.unmet[asked.queue]

    def end(self, message: EndInstance) -> None:
        owner = self._owners.get(message.instance)
        if owner is None:
            message.reply.answer(None)  # drained before
            return
        if message.drain:
            owner.draining = message
            # Its passes refer to what they need; one of them may wait for a page it held.
            self.table.drop_handles(message.instance)
            self._finish_draining(message.instance)
            return
        self.drop(message.instance)
        message.reply.answer(None)

    def drop_all(self) -> None:
        """Nobody is left to talk to."""
        for instance in list(self._owners):
            self.drop(instance)

    def drop(self, instance: InstanceId) -> None:
        """Passes that have not started are dropped; a running step keeps its pages (R10)."""
        owner = self._owners[instance]
        if owner.draining is not None:
            sometimes("an instance is ended while it drains")
            owner.draining.reply.fail(Closed(f"instance {instance} has ended"))
            owner.draining = None
        for pending in reversed(list(self.table.users.instance(instance))):
            pending.error = Closed(f"instance {instance} has ended")
            if pending.running:
                sometimes("an instance ends while its pass runs")
            else:
                self.finish(pending)
        for queue in owner.queues.values():
            for barrier in queue.barriers():  # behind what is running: never reached any more
                barrier.reply.fail(Closed(f"instance {instance} has ended"))
        self._forget(instance)

    def _forget(self, instance: InstanceId) -> None:
        del self._owners[instance]
        self.table.close(instance)

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

    def fail(self, works: Iterable[Pending]) -> None:
        """Finish what has an error and is not in a step; some may be over with others of it."""
        for work in works:
            if not work.finished:
                self.finish(work)

    def finish(self, work: Pending, answer: Any = None) -> None:
        """Answer a pass or command, release what it used, fail what needed it if it failed."""
        if isinstance(work, PendingDecoding):
            work.excuse()
        if work.error is None:
            self._finish_one(work, answer)
            return
        over = [work]
        for each in over:  # grows: a chain of failures may be long, so no recursion
            needing = [later for later in each.dependents if each in later.data]
            self._finish_one(each, answer)
            over += fail_dependents(each, needing)

    def _finish_one(self, work: Pending, answer: Any) -> None:
        work.retire()
        self.planner.remove(work)
        owner = self._owners.get(work.instance)
        if isinstance(work, PendingPass):
            self.table.binding.finish(work)
            self.finished_passes += 1
            if isinstance(work, PendingDecoding) and owner is not None:
                owner.queues[work.queue].counted(work)
        elif isinstance(work, PendingCommand):
            self.table.binding.finish_command(work)
        asked: Ask[Any] = work.token
        if work.error is None:
            if isinstance(work, PendingPass) and not work.continues:
                answer = result_of(work)
            asked.reply.answer(answer)
        else:
            asked.reply.fail(work.error)
            if isinstance(work, PendingPass):
                spoil(work, work.error, self.table.page_size)
            if owner is not None and isinstance(work.error, PassFailed | OutOfResources):
                owner.unmet[work.queue] = work.error
        if owner is not None:
            owner.unfinished -= 1
            self._advance(owner, work.queue)
            if owner.draining is not None:
                self._finish_draining(work.instance)
        if self.observer is not None:
            self.observer.finished(work)

    def _advance(self, owner: Owner, queue: QueueId) -> None:
        for token, good in owner.queues[queue].advance():
            barrier: Synchronize = token
            barrier.reply.answer(good)
            if not good:
                owner.unmet.pop(queue, None)

    def synchronize(self, message: Synchronize) -> None:
        """A barrier behind what the queue has (Q2)."""
        owner = self._owners[message.instance]
        owner.line(message.queue).append(Barrier(message))
        self._advance(owner, message.queue)
