"""The scheduler of one model: the front door for its guests, and the maker of its batches.

Queues, pages and the plan of the next step are pure cores inside this one actor. They share a
mailbox because a guest's calls must be understood in program order: `execute` followed by
`deallocate-resources` must find the page still there (docs/decisions/0001).

Two tasks work on that state: one takes messages in, the other forms a batch whenever the executor
is free and no guest is about to submit more.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, assert_never

import trio

from pie.activity import Activity
from pie.batch import ModelInfo
from pie.config import Scheduling
from pie.errors import PassFailed, PieError
from pie.ids import InstanceId
from pie.mailbox import Ask, answering, draining
from pie.messages import (
    AllocatePointers,
    CancelDecoding,
    CountPages,
    DescribeService,
    EndInstance,
    ExecutorMessage,
    ExportPointers,
    FreePointers,
    ImportPointers,
    ListExports,
    OpenInstance,
    ReleaseExport,
    RunCommand,
    SchedulerMessage,
    SharePages,
    SubmitDecoding,
    SubmitPass,
    Synchronize,
)
from pie.probes import sometimes
from pie.signals import Signal, wait_any

from .allowance import Allowance
from .commands import Commands
from .counters import Counters
from .dispatch import dispatch_named
from .exports import UnknownExport
from .gathering import Gathering
from .ledger import Ledger
from .moves import Moves
from .observer import Observer
from .pages import PageTable
from .passes import PendingCommand
from .persistence import Persistence, StateFolder
from .planner import BatchPlanner
from .prediction import StepTime
from .relocation import Relocation
from .room import Request
from .steps import StepRunner

TAKE_SLICE = 256
"""Messages handled before other tasks get a turn."""


class Scheduler:
    """Sole owner of a model's queues, pages and plan."""

    def __init__(
        self,
        mailbox: trio.MemoryReceiveChannel[SchedulerMessage],
        executor: trio.MemorySendChannel[ExecutorMessage],
        info: ModelInfo,
        activity: Activity,
        config: Scheduling,
        state: StateFolder | None = None,
        observer: Observer | None = None,
        *,
        max_pages_per_user: int | None = None,
    ) -> None:
        """With `state`, exports of KV pages are kept there (R7)."""
        self._mailbox = mailbox
        self._executor = executor
        self._activity = activity
        self._observer = observer
        self._table = PageTable(
            info.page_size,
            info.pages,
            info.embedding_slots,
            adapter_slots=info.adapters.slots if info.adapters else 0,
            host_pages=info.pages if config.host_pages is None else config.host_pages,
            keeps_exports=state is not None,
            max_pages_per_user=max_pages_per_user,
        )
        self._moves = Moves(self._table)
        self._commands = Commands(self._table, executor)
        step_time = StepTime()
        self._planner = BatchPlanner(
            config.step_tokens,
            config.ageing_seconds,
            user_of=self._user_of,
            allowance=Allowance(step_time, config.prefill_slowdown),
        )
        self._ledger = Ledger(self._table, self._planner, observer=observer)
        self._relocation = Relocation(
            self._moves, executor, self._ledger.fail, self._give_up, observer
        )
        self._changed = Signal()
        self._gathering = Gathering(
            dispatch_named(config.dispatch),
            activity,
            self._planner,
            step_time,
            self._changed,
        )
        self._settled = Signal()
        self._counters = Counters()
        self._steps = StepRunner(
            multi_steps=1 if self._gathering.counts_passes else info.multi_steps,
            executor=executor,
            table=self._table,
            ledger=self._ledger,
            gathering=self._gathering,
            counters=self._counters,
            observer=observer,
            wanted=self._wanted,
            tell_answers=self._tell_answers,
            changed=self._changed,
            settled=self._settled,
        )
        self._persistence: Persistence | None = None
        if state is not None:
            self._persistence = Persistence(
                self._table.book, self._relocation, state, info, self._files_changed
            )

    async def run(self) -> None:
        if self._observer is not None:
            self._observer.opened(self._ledger)
        with draining(self._mailbox), self._executor, self._ledger.answering_all():
            if self._persistence is not None:
                await self._persistence.restore()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._form_batches)
                if self._persistence is not None:
                    nursery.start_soon(self._persistence.run)
                async for message in self._mailbox:
                    self._take(message)
                    self._take_waiting()
                    if self._persistence is not None:
                        self._persistence.pass_on()
                    self._tell_answers()
                    self._changed.set()
                await self._finish_running()
                nursery.cancel_scope.cancel()

    async def _finish_running(self) -> None:
        """Nobody is left to talk to: drop what waits, let a running step and files be finished."""
        self._ledger.drop_all()
        self._tell_answers()
        self._changed.set()
        while len(self._planner) or self._busy_with_files():
            self._settled.clear()
            await wait_any((self._settled,))

    # ------------------------------------------------------------------- messages

    def _take_waiting(self) -> None:
        """Handle what else has arrived: one wake-up of this task for a burst of messages."""
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            for _ in range(TAKE_SLICE):
                self._take(self._mailbox.receive_nowait())

    def _take(self, message: SchedulerMessage) -> None:
        with answering(message):
            self._handle(message)
        self._activity.stop()
        if self._observer is not None:
            self._observer.took(message)

    def _handle(self, message: SchedulerMessage) -> None:
        match message:
            case SubmitPass() | SubmitDecoding():
                now = trio.current_time()
                self._gathering.submitted(now)
                self._ledger.submit(message, now)
            case RunCommand():
                self._ledger.command(message, trio.current_time())
            case CancelDecoding():
                self._ledger.cancel(message)
            case AllocatePointers(instance, kind, count, spare):
                if spare:
                    message.reply.answer(self._table.take_spare(instance, kind, count))
                else:
                    self._table.allocate(instance, kind, count, message)
            case FreePointers(instance, kind, pointers):
                self._table.free(instance, kind, pointers)
            case SharePages(instance, pointers):
                message.reply.answer(self._table.share(instance, pointers))
            case Synchronize():
                self._ledger.synchronize(message)
            case OpenInstance():
                self._ledger.open(message)
            case EndInstance():
                self._ledger.end(message)
            case ExportPointers(instance, kind, pointers, name, must_be_new):
                new = must_be_new or not self._table.exported(instance, kind, name)
                if new:
                    self._table.export(instance, kind, pointers, name, message)
                else:
                    message.reply.answer(False)
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
                message.reply.answer(
                    self._counters.snapshot(self._ledger, self._relocation.moved_out)
                )
            case CountPages():
                message.reply.answer(self._table.pages_of())
            case _:
                assert_never(message)

    def _tell_answers(self) -> None:
        for answer in self._table.answers():
            asked: Ask[object] = answer.token
            if _tries(asked) and isinstance(answer.error, UnknownExport):
                asked.reply.answer(None)
            elif answer.error is not None:
                asked.reply.fail(answer.error)
            else:
                asked.reply.answer(answer.value)

    # -------------------------------------------------------------------- batches

    async def _form_batches(self) -> None:
        while True:
            await self._gather()
            if self._moves.due() or self._table.book.errands:
                self._steps.nudge_readers()
            self._ledger.fail(await self._commands.clear_stale())
            if self._persistence is not None and self._table.book.errands:
                await self._persistence.run_errands()
                self._tell_answers()
            # Nothing may wait between this and the step: what it brings back has to be in place.
            if self._moves.due() and await self._relocation.make_room(self._ledger.idle()):
                self._tell_answers()
                continue
            command = self._planner.next_command()
            if command is not None:
                await self._run_command(command)
                continue
            step = self._planner.next_step(trio.current_time(), self._activity.moving)
            if step:
                await self._steps.run(self._gathering.limited(step))
            elif not await self._unblock():
                self._steps.nudge_readers()
                self._changed.clear()
                await wait_any(self._events())

    def _events(self) -> list[Signal]:
        """What to wait for where nothing can be done."""
        if self._moves.due() and self._activity.moving:
            return [self._changed, self._activity.quiet]  # who goes idle makes room
        return [self._changed]

    async def _unblock(self) -> bool:
        """No step can run: whether something could be done for those who wait for room."""
        moves = self._moves
        if not moves.due() or self._activity.moving or self._busy_with_files():
            return False
        if not moves.hopeless():
            if await self._relocation.let_past():
                self._tell_answers()
                return True
            if not self._ledger.all_wait():
                return False  # whoever is idle may yet let go of what it shares
        self._give_up_first()
        return True

    def _user_of(self, instance: InstanceId) -> str:
        return self._ledger.user_of(instance)

    def _give_up_first(self) -> None:
        """Host memory is full, or all wait for pages that they share: the first in line ends (R5).

        No step can run and nobody moves.
        """
        sometimes("the first in line is given up")
        self._give_up(*self._moves.refusal())

    def _give_up(self, request: Request, error: PieError) -> None:
        """Whoever made the request ends, if it has not been granted meanwhile."""
        if request not in self._table.room.requests():
            return
        self._ledger.fail(self._moves.refuse(request, error))
        self._ledger.evict(request.instance, error)
        self._tell_answers()

    def _busy_with_files(self) -> bool:
        """Whether an export is on its way to or from its file: pages may yet move out."""
        return self._persistence is not None and self._persistence.busy

    def _files_changed(self) -> None:
        self._tell_answers()
        self._changed.set()
        self._settled.set()

    async def _gather(self) -> None:
        """Wait until there is work, and then as long as the rule for starting batches has it."""
        while not (self._planner.has_work() or self._moves.due() or self._table.book.errands):
            self._steps.nudge_readers()
            self._changed.clear()
            await wait_any((self._changed,))
        await self._gathering.wait()

    def _wanted(self, running: int) -> bool:
        """Whether anybody waits for the end of a step with so many passes."""
        planner = self._planner
        others = planner.supply()[0] > running or planner.next_command() is not None
        return others or self._moves.due() or bool(self._table.book.errands)

    async def _run_command(self, command: PendingCommand) -> None:
        self._steps.nudge_readers()
        command.running = True
        answer: Any = None
        try:
            answer = await self._commands.run(command)
        except PassFailed as error:
            command.error = command.error or error
        command.running = False
        self._ledger.finish(command, answer)
        self._settled.set()


def _tries(question: Ask[Any]) -> bool:
    """Whether an import may find nothing."""
    return isinstance(question, ImportPointers) and not question.must_exist
