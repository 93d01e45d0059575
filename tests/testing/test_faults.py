"""Failures on demand, through a real engine: who fails, with what, and who goes on (F7)."""

from __future__ import annotations

from collections.abc import Sequence

import inferlet
import pytest
import trio

from pie.engine import Engine
from pie.ids import EventCode
from pie.messages import Event
from pie.testing import (
    ArithmeticRunner,
    Crash,
    DeviceCrash,
    Fault,
    GuestScript,
    HostCalls,
    LinearTiming,
    LostBatch,
    MemoryFault,
    Outcome,
    SimulatedGpu,
    SlowBatch,
    random_faults,
    run_native,
    simulated_engine,
)

SECOND = LinearTiming(1.0, 0.0)


async def complete(args: list[str]) -> str:
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.fill("Once upon a time" + " ".join(args))
    return (await context.generate(sampler=inferlet.Greedy(), max_tokens=8)).text


async def _both(engine: Engine) -> list[Outcome]:
    """Two guests at once, in the order of their launch."""
    done: dict[str, Outcome] = {}

    async def one(name: str) -> None:
        done[name] = await run_native(engine, complete, [name])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, "one")
        nursery.start_soon(one, "two")
    return [done["one"], done["two"]]


async def _texts() -> list[str]:
    async with simulated_engine() as engine:
        return [outcome.text for outcome in await _both(engine)]


@pytest.mark.parametrize(
    "fault", [LostBatch("cosmic ray"), LostBatch("cosmic ray", written=True), MemoryFault()]
)
async def test_a_guest_alone_meets_the_failure_and_the_next_one_runs(
    fault: LostBatch | MemoryFault,
) -> None:
    gpu = SimulatedGpu()
    async with simulated_engine(gpu) as engine:
        gpu.fail_next(fault)
        failed = await run_native(engine, complete)
        after = await run_native(engine, complete)

    assert failed.event.code is EventCode.EXCEPTION
    assert fault.reason in failed.event.text
    assert len(after.text) == 8


@pytest.mark.parametrize("written", [False, True])
async def test_guests_that_shared_a_lost_batch_get_their_answers_all_the_same(
    written: bool,
) -> None:
    """It is run once more for each of them, whatever the device had written."""
    gpu = SimulatedGpu(faults={5: LostBatch(written=written)})
    async with simulated_engine(gpu) as engine:
        outcomes = await _both(engine)

    assert [outcome.text for outcome in outcomes] == await _texts()
    assert [step.passes for step in gpu.steps[5:8]] == [2, 1, 1]


async def test_only_the_one_whose_repetition_fails_too_meets_the_failure() -> None:
    gpu = SimulatedGpu(faults={5: LostBatch(), 7: MemoryFault("no room")})
    async with simulated_engine(gpu) as engine:
        outcomes = await _both(engine)

    codes = [outcome.event.code for outcome in outcomes]
    assert sorted(codes) == [EventCode.COMPLETED, EventCode.EXCEPTION]
    (failed,) = (each for each in outcomes if each.event.code is EventCode.EXCEPTION)
    assert "no room" in failed.event.text


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [(None, 1.0), (SlowBatch(5.0), 5.0), (LostBatch(), 1.0), (MemoryFault(), 0.0)],
)
async def test_a_fault_takes_the_time_it_says(fault: Fault | None, seconds: float) -> None:
    gpu = SimulatedGpu(timing=SECOND, faults=lambda step: None if step else fault)
    async with simulated_engine(gpu) as engine:
        began = trio.current_time()
        await run_native(engine, complete)
        first = gpu.steps[1].began - began if len(gpu.steps) > 1 else trio.current_time() - began

    assert first == pytest.approx(seconds)


async def test_a_slow_batch_is_right() -> None:
    gpu = SimulatedGpu(faults={3: SlowBatch(100.0)})
    async with simulated_engine(gpu) as engine:
        outcomes = await _both(engine)

    assert [outcome.text for outcome in outcomes] == await _texts()


async def test_a_crash_stops_the_engine() -> None:
    """It is no PieError, so nobody turns it into an answer."""
    gpu = SimulatedGpu()
    gpu.fail_next(SlowBatch(1.0), Crash("it smokes"))
    ended: list[Outcome] = []

    async def run() -> None:
        async with simulated_engine(gpu) as engine:
            ended.append(await run_native(engine, complete))

    with pytest.raises(BaseExceptionGroup) as stopped:
        await run()

    assert stopped.group_contains(DeviceCrash, match="it smokes")
    assert ended == []
    assert len(gpu.steps) == 2


async def test_a_lost_command_fails_the_guest_that_gave_it() -> None:
    """Contract X8: told by the barrier of its queue, else at its end."""

    async def script(host: HostCalls) -> str:
        queue = await host.queue()
        slots = await host.call("allocate-resources", queue, 2, 1)
        await host.call("initialize-adapter", queue, slots[0], 4, 8.0, 2, 0.5, 0.1)
        return "not told"

    initialize = GuestScript(script)
    gpu = SimulatedGpu()
    gpu.fail_next_call(LostBatch("the bus was busy"))
    async with simulated_engine(gpu) as engine:
        failed = await run_native(engine, initialize)
        after = await run_native(engine, initialize)

    assert (failed.event.code, after.text) == (EventCode.EXCEPTION, "not told")
    assert "the bus was busy" in failed.event.text


def test_random_faults_are_those_of_the_seed() -> None:
    faults = LostBatch(), MemoryFault(), SlowBatch(2.0)

    def planned(seed: int) -> list[Fault | None]:
        plan = random_faults(0.2, *faults, seed=seed)
        return [plan(step) for step in range(2000)]

    first = planned(1)
    plan = random_faults(0.2, *faults, seed=1)
    assert first == planned(1) != planned(2)
    assert [plan(step) for step in reversed(range(2000))] == first[::-1]
    assert set(first) == {None, *faults}
    assert 300 < sum(fault is not None for fault in first) < 500


@pytest.mark.parametrize("seed", range(4))
async def test_everybody_ends_on_a_machine_that_often_fails(seed: int) -> None:
    """Right, or with the reason; and nothing is left."""
    plan = random_faults(0.2, LostBatch("unlucky"), MemoryFault("unlucky"), seed=seed)
    gpu = SimulatedGpu(ArithmeticRunner(), faults=plan)
    right = SimulatedGpu(ArithmeticRunner())
    async with simulated_engine(right) as engine:
        wanted = [outcome.text for outcome in await _both(engine)]
    async with simulated_engine(gpu) as engine:
        outcomes = await _both(engine)
        stats = (await engine.stats())["simulated"]

    for outcome, text in zip(outcomes, wanted, strict=True):
        assert outcome.event.text == text or "unlucky" in outcome.event.text
    assert (stats.pages_free, stats.instances) == (stats.pages, 0)


@pytest.mark.parametrize(("probability", "faults"), [(1.5, (LostBatch(),)), (0.5, ())])
def test_impossible_random_faults_are_refused(
    probability: float, faults: tuple[Fault, ...]
) -> None:
    with pytest.raises(ValueError, match=r"1\.5|no kind"):
        random_faults(probability, *faults)


async def _crowded(gpu: SimulatedGpu, *, moves: bool = True) -> list[str]:
    """Four guests in room for two of them: what those give that come to their end."""
    texts: list[str] = []

    async def long(args: list[str]) -> str:
        context = await inferlet.Context.create(await inferlet.get_model())
        await context.fill(args[0])
        texts.append((await context.generate(sampler=inferlet.Greedy(), max_tokens=60)).text)
        return texts[-1]

    async def run(name: str) -> None:
        outcome = await run_native(engine, long, [name])
        assert outcome.event.code is EventCode.COMPLETED or "no bus" in outcome.event.text

    async with simulated_engine(gpu) as engine:
        async with trio.open_nursery() as nursery:
            for name in "abcd":
                nursery.start_soon(run, name)
        stats = (await engine.stats())["simulated"]
        assert (stats.moved_out > 0, stats.pages_free) == (moves, stats.pages)
    return sorted(texts)


async def test_a_page_that_is_lost_on_its_way_is_moved_once_more() -> None:
    """It is nobody's fault, and still there: a lost step is repeated as well."""
    wanted = await _crowded(SimulatedGpu(ArithmeticRunner(pages=8)))
    gpu = SimulatedGpu(ArithmeticRunner(pages=8))
    slow, lost = SlowBatch(1.0), LostBatch("the bus was busy")
    gpu.fail_next_call(lost, slow, lost, slow, slow, lost)

    assert await _crowded(gpu) == wanted


async def test_where_pages_cannot_be_moved_some_end_and_the_others_go_on() -> None:
    """Whoever ends is told why; at least one never needs anybody else's pages."""
    wanted = await _crowded(SimulatedGpu(ArithmeticRunner(pages=8)))
    gpu = SimulatedGpu(ArithmeticRunner(pages=8))
    gpu.fail_next_call(*[LostBatch("no bus")] * 1000)
    right = await _crowded(gpu, moves=False)

    assert 0 < len(right) < len(wanted)
    assert set(right) <= set(wanted)


async def _leave_an_adapter(host: HostCalls) -> None:
    queue = await host.queue()
    slots = await host.call("allocate-resources", queue, 2, 1)
    blob = await host.call("blob", b"hash of a secret")
    await host.call("upload-adapter", queue, slots[0], "name", blob)


async def _tokens_with(
    host: HostCalls, queue: object, pages: Sequence[int], adapter: Sequence[int]
) -> list[int]:
    work = await host.call("create-forward-pass", queue)
    await host.call("input-tokens", work, [65] * 8, list(range(8)))
    await host.call("kv-cache", work, pages, 8)
    await host.call("output-tokens", work, list(range(8)), 0.0)
    for slot in adapter:
        await host.call("set-adapter", work, slot)
    return await host.tokens(await host.call("forward-pass.execute", work))


async def _with_a_used_slot(lost: int) -> Event:
    """How a guest ends that has an adapter slot after another, and a device that loses so much."""

    async def find(host: HostCalls) -> str:
        queue = await host.queue()
        pages = await host.call("allocate-resources", queue, 0, 1)
        slots = await host.call("allocate-resources", queue, 2, 1)
        gpu.fail_next_call(*[LostBatch("no bus")] * lost)
        without = await _tokens_with(host, queue, pages, [])
        return str(await _tokens_with(host, queue, pages, slots) == without)

    gpu = SimulatedGpu()
    async with simulated_engine(gpu) as engine:
        await run_native(engine, GuestScript(_leave_an_adapter))
        return (await run_native(engine, GuestScript(find))).event


@pytest.mark.parametrize("lost", [1, 3])
async def test_a_slot_is_cleared_for_its_next_owner_whatever_is_lost(lost: int) -> None:
    """Contract R3: else the second guest would compute with the first one's adapter. It is asked
    for twice, once more before the next step, and so on.
    """
    assert await _with_a_used_slot(lost) == Event(EventCode.COMPLETED, "True")


async def test_a_pass_fails_whose_slot_cannot_be_cleared() -> None:
    """The one before it has no adapter and goes on."""
    event = await _with_a_used_slot(lost=4)

    assert event.code is EventCode.EXCEPTION
    assert event.text.endswith("its adapter slot could not be cleared: no bus")
