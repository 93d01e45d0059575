"""When a batch starts: the gather rule, in virtual time, with native guests in a real engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import inferlet
import pytest
import trio

from pie.engine import Engine
from pie.programs import NativeProgram
from pie.testing import HashModel, SimulatedGpu, outcome_of, simulated_engine

from .scheduling import a_pass, scheduler_bench, tokens_of

TOKENS = 40
Main = Callable[[list[str]], Awaitable[str | None]]


async def looping(args: list[str]) -> str:
    """Decode one token after the other."""
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.fill("".join(args) or "x")
    for _ in range(TOKENS):
        context.fill_tokens([await context.step(inferlet.Greedy())])
    return "done"


async def idle_for_ever(_: list[str]) -> None:
    """Opens a queue and never submits anything."""
    await inferlet.Context.create(await inferlet.get_model())
    await trio.sleep_forever()


async def spinning(_: list[str]) -> None:
    """Uses the processor for ever and submits nothing: each turn takes 5 ms of virtual time."""
    context = await inferlet.Context.create(await inferlet.get_model())
    while True:
        await context.model.tokenize("x")
        await trio.sleep(0.005)


async def _run_all(engine: Engine, count: int, main: Main) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            launched = await engine.launch(NativeProgram(main))
            nursery.start_soon(outcome_of, launched)


@pytest.mark.parametrize("guests", [1, 2, 16, 64, 256])
async def test_looping_guests_all_share_every_batch(guests: int) -> None:
    """N guests give batches of N, not of 1 and N - 1 in turn."""
    gpu = SimulatedGpu()
    async with simulated_engine(gpu) as engine:
        await _run_all(engine, guests, looping)

    # Launches are told one by one, so the first step may begin with those launched so far.
    assert len(gpu.steps) <= TOKENS + 1
    assert [step.passes for step in gpu.steps[2:-1]] == [guests] * (len(gpu.steps) - 3)


@pytest.mark.parametrize("company", [spinning, idle_for_ever])
async def test_guests_that_never_submit_cost_the_others_nothing(company: Main) -> None:
    """64 looping guests keep at least 95 % of their throughput."""

    async def seconds(*others: Main) -> float:
        async with simulated_engine(SimulatedGpu()) as engine:
            more = [await engine.launch(NativeProgram(other)) for other in others]
            began = trio.current_time()
            await _run_all(engine, 64, looping)
            took = trio.current_time() - began
            for launched in more:
                await engine.terminate(launched.instance)
        return took

    assert await seconds(company, company) <= await seconds() / 0.95


async def test_launches_do_not_break_up_the_batches_of_others() -> None:
    """32 launches a second beside 64 looping guests."""

    async def short(_: list[str]) -> str:
        context = await inferlet.Context.create(await inferlet.get_model())
        await context.fill("hello")
        return str(await context.step(inferlet.Greedy()))

    gpu = SimulatedGpu()
    async with simulated_engine(gpu) as engine, trio.open_nursery() as nursery:

        async def launch_others() -> None:
            while True:
                nursery.start_soon(outcome_of, await engine.launch(NativeProgram(short)))
                await trio.sleep(1 / 32)

        with trio.CancelScope() as others:
            async with trio.open_nursery() as background:
                background.start_soon(launch_others)
                await _run_all(engine, 64, looping)
                others.cancel()

    small = [step for step in gpu.steps if step.passes < 64]
    assert len(small) <= 2
    assert len(gpu.steps) <= TOKENS * 1.05


async def test_guests_that_wait_for_something_else_are_not_waited_for() -> None:
    """Every eighth token a guest calls a tool for 25 ms; the others go on meanwhile."""

    async def with_tool(args: list[str]) -> str:
        context = await inferlet.Context.create(await inferlet.get_model())
        await context.fill("".join(args) or "x")
        for step in range(TOKENS):
            context.fill_tokens([await context.step(inferlet.Greedy())])
            if step % 8 == 7:
                await inferlet.sleep(0.025)
        return "done"

    gpu = SimulatedGpu()
    async with simulated_engine(gpu) as engine:
        await _run_all(engine, 64, with_tool)

    assert len(gpu.steps) <= TOKENS + 1


async def test_a_wait_too_short_for_the_clock_is_over() -> None:
    """What is left of a fixed wait is rounded: less than the clock can tell apart is no wait."""
    async with scheduler_bench(dispatch="fixed-wait") as bench:
        me = bench.open()
        pages = await bench.allocate(me, 1)
        for number in range(1, 20):
            await trio.sleep(number * 0.1234567)
            began = trio.current_time()
            await tokens_of(bench.submit(me, a_pass([65], pages, 1)))
            assert trio.current_time() - began == pytest.approx(0.005 + 0.01 + 0.00001)


async def test_who_stops_after_it_was_waited_for_can_still_make_room() -> None:
    """A guest computes longer than its batch waits, then blocks without a word to the scheduler."""
    async with scheduler_bench(HashModel(pages=4), host_pages=4) as bench:
        holding, asking = bench.open(0), bench.open(1)
        await bench.allocate(holding, 4)
        bench.movers[holding].start()
        with trio.move_on_after(60) as limit:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bench.allocate, asking, 2)
                await trio.sleep(1)
                bench.movers[holding].stop()

    assert not limit.cancelled_caught
