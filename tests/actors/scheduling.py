"""A scheduler on a hash model, spoken to directly: no guests, no engine."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from pie.activity import Activity, Mover
from pie.actors.batching import Scheduler
from pie.actors.executor import Device, Executor
from pie.actors.persistence import StateFolder
from pie.batch import Batch, BatchResult, ModelRunner
from pie.config import Scheduling
from pie.errors import PieError
from pie.ids import InstanceId, Pointer, Priority, QueueId, ResourceKind
from pie.messages import (
    AllocatePointers,
    DescribeService,
    ExecutorMessage,
    ExportPointers,
    ForwardPass,
    ImportPointers,
    ModelService,
    OpenInstance,
    PassResult,
    Rank,
    Sample,
    SchedulerMessage,
    ServiceStats,
    SubmitDecoding,
    SubmitPass,
)
from pie.testing import HashModel, SimulatedGpu

PAGE = ResourceKind.KV_PAGE


@attrs.define(eq=False)
class Bench:
    """A scheduler's address, with short names for what tests say to it."""

    service: ModelService
    scheduler: Scheduler
    evictions: list[PieError] = attrs.field(factory=list)
    movers: dict[InstanceId, Mover] = attrs.field(factory=dict)
    """Started by a test, a guest counts as moving: it may yet free what others wait for."""

    def open(self, instance: int = 0, user: str = "local", seed: int = 0) -> InstanceId:
        mover = Mover([self.service.activity])
        self.movers[InstanceId(instance)] = mover
        self.service.tell(
            OpenInstance(InstanceId(instance), user, seed, mover, self.evictions.append)
        )
        return InstanceId(instance)

    async def allocate(
        self, instance: InstanceId, count: int, kind: ResourceKind = PAGE
    ) -> tuple[Pointer, ...]:
        return await self.service.ask(AllocatePointers(instance, kind, count))

    async def take_spare(self, instance: InstanceId, count: int) -> tuple[Pointer, ...]:
        return await self.service.ask(AllocatePointers(instance, PAGE, count, spare=True))

    def submit(
        self,
        instance: InstanceId,
        work: ForwardPass,
        *,
        queue: int = 0,
        priority: Priority = Priority.NORMAL,
    ) -> SubmitPass:
        message = SubmitPass(instance, QueueId(queue), priority, work)
        self.service.tell(message)
        return message

    def decode(
        self,
        instance: InstanceId,
        work: ForwardPass,
        steps: int,
        *,
        stops: Iterable[int] = (),
        queue: int = 0,
        priority: Priority = Priority.NORMAL,
    ) -> SubmitDecoding:
        message = SubmitDecoding(instance, QueueId(queue), priority, work, steps, frozenset(stops))
        self.service.tell(message)
        return message

    async def export(self, me: InstanceId, pages: tuple[Pointer, ...], name: str) -> None:
        await self.service.ask(ExportPointers(me, PAGE, pages, name))

    async def import_(self, me: InstanceId, name: str) -> tuple[Pointer, ...]:
        found = await self.service.ask(ImportPointers(me, PAGE, name))
        assert found is not None
        return found

    async def stats(self) -> ServiceStats:
        return await self.service.ask(DescribeService())


RunModel = Callable[[Batch], Awaitable[BatchResult]]


@attrs.define(eq=False)
class _Device(SimulatedGpu):
    """A simulated model whose steps are run by the test's own function."""

    step: RunModel | None = None

    async def run(self, batch: Batch) -> BatchResult:
        assert self.step is not None
        return await self.step(batch)


def _device(model: ModelRunner, run: RunModel | Device | None) -> Device:
    if run is None:
        return SimulatedGpu(model)
    return _Device(model, step=run) if callable(run) else run


@asynccontextmanager
async def scheduler_bench(
    model: ModelRunner | None = None,
    *,
    step_tokens: int = 512,
    run: RunModel | Device | None = None,
    ageing_seconds: float = 2.0,
    prefill_slowdown: float = 1.8,
    host_pages: int = 0,
    dispatch: str = "gather",
    state: StateFolder | None = None,
    max_pages_per_user: int | None = None,
) -> AsyncIterator[Bench]:
    """Run a scheduler and its executor; check the page table at the end."""
    model = model or HashModel()
    address, mailbox = trio.open_memory_channel[SchedulerMessage](math.inf)
    executor, batches = trio.open_memory_channel[ExecutorMessage](0)
    activity = Activity()
    config = Scheduling(
        step_tokens=step_tokens,
        ageing_seconds=ageing_seconds,
        host_pages=host_pages,
        dispatch=dispatch,
        prefill_slowdown=prefill_slowdown,
    )
    scheduler = Scheduler(
        mailbox,
        executor,
        model.info,
        activity,
        config,
        state,
        max_pages_per_user=max_pages_per_user,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Executor(batches, _device(model, run)).run)
        nursery.start_soon(scheduler.run)
        service = ModelService(index=0, info=model.info, activity=activity, scheduler=address)
        yield Bench(service, scheduler)
        scheduler._table.check()
        assert activity.moving == 0
        service.close()


def a_pass(
    tokens: Sequence[int],
    pages: Sequence[Pointer],
    length: int,
    *,
    outputs: Sequence[Sample | Rank] | None = None,
    positions: Sequence[int] | None = None,
    **more: object,
) -> ForwardPass:
    """A pass that writes `tokens` to the end of `length` slots and samples after the last."""
    start = length - len(tokens)
    return ForwardPass(
        inputs=tuple(tokens),
        positions=tuple(positions or range(start, length)),
        pages=tuple(pages),
        length=length,
        outputs=tuple((Sample(len(tokens) - 1, 0.0),) if outputs is None else outputs),
        **more,  # type: ignore[arg-type]
    )


async def tokens_of(*messages: SubmitPass) -> list[list[int]]:
    results: list[PassResult] = [await message.reply.wait() for message in messages]
    return [result.tokens for result in results]


async def alone(tokens: Sequence[int]) -> list[int]:
    """What a fresh context of these tokens continues with, in pages of 16."""
    async with scheduler_bench() as bench:
        me = bench.open()
        pages = await bench.allocate(me, -(-len(tokens) // 16))
        return (await tokens_of(bench.submit(me, a_pass(tokens, pages, len(tokens)))))[0]
