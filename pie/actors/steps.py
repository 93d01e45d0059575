"""Runs steps: hands them to the executor, and settles what comes of them."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from pie.batch import Batch, BatchResult
from pie.errors import DeviceStalled, PassFailed, PieError
from pie.ids import InstanceId
from pie.mailbox import post
from pie.messages import ExecutorMessage, RunBatch, RunSteps, TokenFeed
from pie.multistep import MultiStep
from pie.probes import sometimes
from pie.signals import Signal, calling, wait_any

from .counters import Counters
from .decodings import PendingDecoding
from .gathering import Gathering
from .ledger import Ledger
from .multistep import announcing, decodings_of, steps_of
from .observer import Observer
from .packing import Packer
from .pages import PageTable
from .passes import PendingPass
from .planner import Chunk
from .slices import SettleSlice

UNREPEATABLE = (
    "the step was lost and cannot be repeated: a pass takes an embedding slot that it stores to, "
    "which may have happened"
)


@attrs.define(eq=False, kw_only=True)
class StepRunner:
    """One step at a time, or several that the device makes by itself."""

    multi_steps: int
    """Most of them in one call."""
    executor: trio.MemorySendChannel[ExecutorMessage]
    table: PageTable
    ledger: Ledger
    gathering: Gathering
    counters: Counters
    observer: Observer | None
    wanted: Callable[[int], bool]
    """Whether anybody waits for the end of a step with so many passes."""
    tell_answers: Callable[[], None]
    changed: Signal
    """Set when a message has been handled."""
    settled: Signal
    """To be set when a step has been."""
    _slice: SettleSlice = attrs.field(factory=SettleSlice, init=False)
    _began: float = attrs.field(default=0.0, init=False)
    """When the step that runs began."""
    _made: int = attrs.field(default=0, init=False)
    """Steps of the call that runs, or ran last, that are over."""
    _readers: list[TokenFeed] = attrs.field(factory=list, init=False)
    """Feeds with new tokens that nobody has been told of yet."""

    async def run(self, step: list[Chunk]) -> None:
        """Run `step`, and the steps behind it that the device makes by itself; answer who is done.

        What a lost step had of several instances is run once more, apart.
        """
        packer = Packer(self.table, self._steps_of(step) - 1)
        for chunk in step:
            packer.add(chunk)
            chunk.work.running = True
        batch = packer.batch()
        began = self._began = trio.current_time()
        self._made = 0
        if self.observer is not None:
            self.observer.began(step, batch)
        lost: PieError | None = None
        try:
            if packer.ahead:
                result = await self._run_steps(step, packer, packer.steps(batch))
            else:
                reply = await post(self.executor, RunBatch(batch))
                await self._after_start()
                result = await reply.wait()
            packer.unpack(result)
        except PassFailed as error:
            lost = error
        self._count(step, batch, 1)
        self._learn(step, batch, self._began - began)
        if self.observer is not None:
            self.observer.ended(step, lost)
        if lost is not None and await self._repeat_apart(step, packer, lost):
            return
        await self._settle(step, lost)

    async def _after_start(self) -> None:
        """The executor starts a step before anybody sees to what the last one gave."""
        if self._readers:
            await trio.lowlevel.checkpoint()
            self.nudge_readers()

    def _count(self, step: list[Chunk], batch: Batch, times: int) -> None:
        """As many steps like `batch` are over since the last one was counted."""
        now = trio.current_time()
        seconds, self._began = (now - self._began) / times, now
        self._made += times
        outputs = len(batch.sampled_rows) + len(batch.ranked_rows)
        self.counters.count(step, outputs, seconds, times)

    def _learn(self, step: list[Chunk], batch: Batch, seconds: float) -> None:
        """All steps of a call, which began with `batch`, took so long."""
        slots = int(batch.lengths.sum()) + batch.rows * (self._made - 1) // 2  # of the mean step
        self.gathering.ended(step, batch.rows, slots, seconds / self._made)

    # -------------------------------------------------- several steps in one call

    def _steps_of(self, step: list[Chunk]) -> int:
        """How many steps the device may make of this one: more only if nobody else wants any."""
        if self.multi_steps == 1 or self.wanted(len(step)):
            return 1
        return steps_of(step, self.multi_steps, self.gathering.seconds(step))

    async def _run_steps(self, step: list[Chunk], packer: Packer, steps: MultiStep) -> BatchResult:
        """Let the device go on by itself; settle each step that another has followed. The last
        one's result.
        """
        reply = await post(self.executor, RunSteps(steps))
        if self.observer is not None:
            steps.announce()
        await self._after_start()
        works = decodings_of(step)
        settled = 0  # of its steps, those that others have followed

        def settle() -> None:
            nonlocal settled
            followed = steps.followed
            if followed > settled:
                packer.began_for_good()
                self._follow(step, works, steps, settled, followed)
                settled = followed

        def progressed() -> None:
            settle()
            self.nudge_readers()

        with announcing(steps, works), calling(progressed, steps.progress):
            while not reply.ready():
                self.changed.clear()
                if self.wanted(len(step)) or not all(work.wanted for work in works):
                    sometimes("a device that goes on by itself is halted")
                    steps.halt()
                await wait_any((reply, self.changed))
        settle()
        reply.take()
        return BatchResult(tokens=steps.tokens[settled], sampled_finite=steps.finite[settled])

    def _follow(
        self,
        step: list[Chunk],
        works: list[PendingDecoding],
        steps: MultiStep,
        first: int,
        end: int,
    ) -> None:
        """Steps `first` to `end` have each been followed by another: their passes go on."""
        observer = self.observer
        if observer is None:
            self._count(step, steps.batch, end - first)
            self._go_on(works, steps, first, end)
            return
        for done in range(first, end):
            self._count(step, steps.batch, 1)
            observer.ended(step, None)
            self._go_on(works, steps, done, done + 1)
            observer.followed(step, steps.batch_of(done + 1))

    def _go_on(self, works: list[PendingDecoding], steps: MultiStep, first: int, end: int) -> None:
        """`works` have drawn their tokens of these steps, and go on."""
        drawn = steps.tokens[first:end].T.tolist()
        for work, tokens in zip(works, drawn, strict=True):
            if work.wanted and not self._draw(work, tokens):
                raise AssertionError(f"a pass that is over has been followed: {work}")

    async def _repeat_apart(self, step: list[Chunk], packer: Packer, lost: PieError) -> bool:
        """After a lost step, run what each instance had in it once more, without the others (F7).

        False if all of it has failed: it was of one instance alone, or the device is still at it.
        """
        packer.undo_clears()
        if isinstance(lost, DeviceStalled):
            return False
        parts: dict[InstanceId, list[Chunk]] = {}
        for chunk in step:
            parts.setdefault(chunk.work.instance, []).append(chunk)
        if len(parts) == 1:
            return False
        sometimes("a lost batch is repeated by instance")
        for part in parts.values():
            if all(chunk.work.repeatable for chunk in part):
                await self.run(part)
            else:
                sometimes("a lost step cannot be repeated")
                await self._settle(part, PassFailed(UNREPEATABLE))
        return True

    def _goes_on(self, work: PendingPass) -> bool:
        """Whether a pass that has run has another behind it, which is then ready."""
        return isinstance(work, PendingDecoding) and self._draw(work, work.results)

    def _draw(self, work: PendingDecoding, tokens: list[int]) -> bool:
        """As many passes of a decoding have drawn `tokens`: whether another one follows."""
        now = trio.current_time()
        if not self.ledger.goes_on(work, tokens, now):
            return False
        self.gathering.followed(now)
        if self.observer is not None:
            self.observer.proceeded(work)
        self._readers.append(work.token.feed)
        return True

    def nudge_readers(self) -> None:
        """Wake who waits for tokens of decodings that go on."""
        for feed in self._readers:
            feed.nudge()
        self._readers.clear()

    async def _settle(self, step: list[Chunk], lost: PieError | None) -> None:
        left = self._slice.size
        for chunk in step:
            work = chunk.work
            work.running = False
            self.ledger.planner.ran(chunk)
            work.error = work.error or lost
            if work.error is not None or (chunk.last and not self._goes_on(work)):
                self.ledger.finish(work)
            left -= 1
            if left == 0:
                sometimes("a step is answered in slices")
                self.tell_answers()
                began = trio.current_time()
                await trio.lowlevel.checkpoint()
                self._slice.took(trio.current_time() - began)
                left = self._slice.size
        self.tell_answers()
        self.settled.set()
