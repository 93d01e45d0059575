"""A simulated accelerator: a runner whose steps take their time on Trio's clock, and may fail."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import Protocol, TypeVar

import attrs
import trio

from pie.batch import Batch, BatchResult, ModelRunner
from pie.errors import PassFailed
from pie.multistep import MultiStep, step_by_step

from .arithmetic import ArithmeticRunner
from .faults import (
    Crash,
    DeviceCrash,
    Fault,
    FaultPlan,
    Hang,
    LostBatch,
    MemoryFault,
    SlowBatch,
    as_plan,
    never,
)
from .hashing import HashModel
from .machines import Machine
from .shapes import ModelShape
from .timing import LinearTiming, RooflineTiming, Timing

T = TypeVar("T")


class MakeRunner(Protocol):
    """A kind of simulated model: `HashModel`, `ArithmeticRunner` and `ScriptedModel` are some."""

    def __call__(
        self, name: str, /, *, pages: int, page_size: int, context_length: int
    ) -> ModelRunner: ...


@attrs.frozen
class StepRecord:
    """One batch that was run, or lost."""

    began: float
    passes: int
    rows: int


@attrs.define(eq=False)
class SimulatedGpu:
    """A `Device` that answers with `runner` after `timing`, in virtual time under a virtual clock.

    With `jitter`, each step takes up to that fraction more, drawn from `seed`. Steps fail as
    `faults` plans and as `fail_next` says; the latter comes first.
    """

    runner: ModelRunner = attrs.field(factory=HashModel)
    timing: Timing = attrs.field(factory=LinearTiming)
    seed: int = attrs.field(default=0, kw_only=True)
    jitter: float = attrs.field(default=0.0, kw_only=True, validator=attrs.validators.ge(0))
    faults: FaultPlan = attrs.field(default=never, converter=as_plan, kw_only=True)
    steps: list[StepRecord] = attrs.field(factory=list, init=False)
    """Every batch so far, for tests to look at."""
    _next_steps: deque[Fault] = attrs.field(factory=deque, init=False, repr=False)
    _next_calls: deque[Fault] = attrs.field(factory=deque, init=False, repr=False)
    _random: Random = attrs.field(init=False, repr=False)
    _late: tuple[float, Callable[[], object]] | None = attrs.field(
        default=None, init=False, repr=False
    )
    """Until when it hangs, and what it does then."""

    def __attrs_post_init__(self) -> None:
        self._random = Random(self.seed)

    @classmethod
    def of(
        cls,
        machine: Machine,
        shape: ModelShape,
        *,
        make_runner: MakeRunner = ArithmeticRunner,
        page_size: int = 16,
        seed: int = 0,
        jitter: float = 0.0,
        faults: FaultPlan | Mapping[int, Fault] = never,
    ) -> SimulatedGpu:
        """`machine` with `shape` loaded: its step times, and as many KV pages as fit beside it.

        What it answers is that of `make_runner`. UsageError if the model does not fit.
        """
        runner = make_runner(
            shape.name,
            pages=machine.pages(shape, page_size),
            page_size=page_size,
            context_length=shape.context_length,
        )
        timing = RooflineTiming(machine, shape, page_size)
        return cls(runner, timing, seed=seed, jitter=jitter, faults=faults)

    def fail_next(self, *faults: Fault) -> None:
        """The next steps, as many as there are `faults`, have them."""
        self._next_steps.extend(faults)

    def fail_next_call(self, *faults: Fault) -> None:
        """Likewise for what is no step: adapters, and reading and writing pages or slots."""
        self._next_calls.extend(faults)

    async def run(self, batch: Batch) -> BatchResult:
        fault = self._next_steps.popleft() if self._next_steps else self.faults(len(self.steps))
        self.steps.append(StepRecord(trio.current_time(), batch.passes, batch.rows))
        return await self._do(fault, self._seconds(batch), self.runner.run, batch)

    async def run_steps(self, steps: MultiStep) -> None:
        await step_by_step(self.run, steps)

    async def apply(self, method: Callable[..., T], /, *arguments: object) -> T:
        concerned = bool(self._next_calls) and getattr(method, "__self__", None) is self.runner
        fault = self._next_calls.popleft() if concerned else None
        seconds = 0.0
        if method in (self.runner.read_pages, self.runner.write_pages):
            seconds = self.timing.move_seconds(len(arguments[0]))  # type: ignore[arg-type]
        return await self._do(fault, seconds, method, *arguments)

    async def _do(
        self, fault: Fault | None, seconds: float, method: Callable[..., T], /, *arguments: object
    ) -> T:
        """Call `method` after `seconds`, unless `fault` has it otherwise."""
        await self._until_it_answers()
        if isinstance(fault, Hang):
            self._late = trio.current_time() + fault.seconds, partial(method, *arguments)
            await trio.sleep(fault.seconds)
            self._late = None
            return method(*arguments)
        if isinstance(fault, MemoryFault):
            await trio.lowlevel.checkpoint()
            raise PassFailed(fault.reason)
        await trio.sleep(seconds * fault.factor if isinstance(fault, SlowBatch) else seconds)
        if isinstance(fault, Crash):
            raise DeviceCrash(fault.reason)
        if isinstance(fault, LostBatch):
            if fault.written:
                method(*arguments)
            raise PassFailed(fault.reason)
        return method(*arguments)

    async def _until_it_answers(self) -> None:
        """Wait for a call that hangs and was given up; what it gives is dropped."""
        if self._late is not None:
            until, method = self._late
            await trio.sleep_until(until)
            self._late = None
            method()

    def _seconds(self, batch: Batch) -> float:
        factor = 1 + self.jitter * self._random.random() if self.jitter else 1
        return self.timing.seconds(batch) * factor
