"""An engine whose model raises or hangs goes on, and ends (contract F7)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import inferlet
import pytest
import trio

from pie.engine import Engine
from pie.guarded import GuardedDevice
from pie.ids import EventCode
from pie.testing import (
    ArithmeticRunner,
    Crash,
    Fault,
    Hang,
    LinearTiming,
    LostBatch,
    Outcome,
    SimulatedGpu,
    random_faults,
    run_native,
    simulated_engine,
)

STEP = LinearTiming(0.01, 0.0)
LIMIT = 10.0


def _device(pages: int = 4096, **more: object) -> tuple[SimulatedGpu, GuardedDevice]:
    gpu = SimulatedGpu(ArithmeticRunner(pages=pages), STEP, **more)  # type: ignore[arg-type]
    return gpu, GuardedDevice(gpu, LIMIT)


async def _say(args: list[str]) -> str:
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.fill(args[0])
    return (await context.generate(sampler=inferlet.Greedy(), max_tokens=60)).text


async def _all(engine: Engine, names: Sequence[str]) -> list[Outcome]:
    """Guests that begin at once; in the order of `names`."""
    outcomes: dict[str, Outcome] = {}

    async def run(name: str) -> None:
        outcomes[name] = await run_native(engine, _say, [name])

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(run, name)
    return [outcomes[name] for name in names]


async def _right(names: Sequence[str]) -> list[str]:
    async with simulated_engine(SimulatedGpu(ArithmeticRunner(), STEP)) as engine:
        return [outcome.text for outcome in await _all(engine, names)]


async def _check_all_is_given_back(engine: Engine) -> None:
    stats = (await engine.stats())["simulated"]
    assert (stats.pages_free, stats.instances, stats.queued) == (stats.pages, 0, 0)


@pytest.mark.parametrize("faults", [1, 2])
async def test_a_runner_that_raises_is_asked_once_more_for_each_instance(faults: int) -> None:
    """Whoever meets it twice fails with what it raised; the others never hear of it."""
    wanted = await _right("abc")
    gpu, device = _device()
    gpu.fail_next(*[Crash("it smokes")] * faults)
    async with simulated_engine(device) as engine:
        outcomes = await _all(engine, "abc")
        await _check_all_is_given_back(engine)

    failed = [outcome.event for outcome in outcomes if outcome.event.code is EventCode.EXCEPTION]
    assert len(failed) == faults - 1
    assert all("a step failed: DeviceCrash: it smokes" in event.text for event in failed)
    assert sum(outcome.event.text in wanted for outcome in outcomes) == 3 - len(failed)
    assert device.failures == faults


async def test_a_runner_that_hangs_fails_what_is_in_its_step_and_the_next_guests_run() -> None:
    """It is not asked again for each instance: that would take as long once more for each."""
    wanted = await _right("d")
    gpu, device = _device()
    gpu.fail_next(Hang(15.0))
    async with simulated_engine(device) as engine:
        began = trio.current_time()
        outcomes = await _all(engine, "abc")
        assert trio.current_time() - began == LIMIT
        assert device.stalled(trio.current_time())
        later = await _all(engine, "d")
        await _check_all_is_given_back(engine)

    assert [outcome.event.code for outcome in outcomes] == [EventCode.EXCEPTION] * 3
    assert all("the limit is 10 s" in outcome.event.text for outcome in outcomes)
    assert [outcome.text for outcome in later] == wanted
    assert not device.stalled(trio.current_time())


async def test_an_instance_is_ended_while_its_step_hangs() -> None:
    """Contract R10: its terminal event does not wait for the step."""
    gpu, device = _device()
    gpu.fail_next(Hang(15.0))
    async with simulated_engine(device) as engine, trio.open_nursery() as nursery:
        nursery.start_soon(run_native, engine, _say, ["a"])
        await trio.sleep(1)
        ((instance, _),) = (await engine.pages_of()).items()
        began = trio.current_time()
        await engine.terminate(instance)
        assert trio.current_time() == began


@pytest.mark.parametrize("fault", [Crash("no bus"), Hang(15.0), LostBatch("no bus")])
async def test_the_engine_outlives_a_device_on_which_pages_cannot_be_moved(fault: Fault) -> None:
    """Whoever needs the room, or a page that is lost, ends; whoever does not is right."""
    wanted = await _right("abcd")
    gpu, device = _device(pages=8)
    gpu.fail_next_call(*[fault] * 6)
    async with simulated_engine(device) as engine:
        outcomes = await _all(engine, "abcd")
        await _check_all_is_given_back(engine)
        assert [o.text for o in await _all(engine, "a")] == wanted[:1]

    ended = [outcome for outcome in outcomes if outcome.event.code is EventCode.EXCEPTION]
    assert 0 < len(ended) < 4
    assert all("host memory" in outcome.event.text for outcome in ended)
    for outcome, text in zip(outcomes, wanted, strict=True):
        assert outcome in ended or outcome.text == text


@pytest.mark.parametrize("seed", range(4))
async def test_everybody_ends_on_a_device_that_crashes_and_hangs(seed: int) -> None:
    """Right, or with the reason; and nothing is left."""
    names = "abcdefgh"
    wanted = await _right(names)
    plan = random_faults(0.1, Crash("unlucky"), Hang(12.0), LostBatch("unlucky"), seed=seed)
    _, device = _device(pages=12, faults=plan)
    async with simulated_engine(device) as engine:
        outcomes = await _all(engine, names)
        await _check_all_is_given_back(engine)

    reasons = ("unlucky", "the limit is 10 s")
    for outcome, text in zip(outcomes, wanted, strict=True):
        said = outcome.event.text
        assert said == text or any(reason in said for reason in reasons)
    assert device.failures > 0


@pytest.mark.parametrize(("hurry", "seconds"), [(None, LIMIT), (3.0, 4.0)])
async def test_an_engine_that_ends_waits_for_a_hung_step_so_long_and_no_longer(
    hurry: float | None, seconds: float
) -> None:
    """Or as long as the device is told."""
    gpu, device = _device()
    gpu.fail_next(Hang(1e6))
    began = trio.current_time()
    with trio.CancelScope() as scope:
        async with simulated_engine(device) as engine, trio.open_nursery() as nursery:
            nursery.start_soon(run_native, engine, _say, ["a"])
            await trio.sleep(1)
            if hurry is not None:
                device.give_up_after(hurry)
            scope.cancel()

    assert trio.current_time() - began == pytest.approx(seconds)


HUNG = """
import threading, sys, trio
from pie.devices import ThreadedModel
from pie.guarded import GuardedDevice
from pie.testing import HashModel, run_native, simulated_engine
import inferlet

class Hung(HashModel):
    def run(self, batch):
        threading.Event().wait()

async def say(args):
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.fill("a question")
    return (await context.generate(max_tokens=3)).text

async def main():
    device = GuardedDevice(ThreadedModel(Hung()), 0.2)
    async with simulated_engine(device) as engine:
        outcome = await run_native(engine, say)
        print(outcome.event.code.name, flush=True)

trio.run(main)
print("ended")
"""


@pytest.mark.slow
def test_a_process_ends_whose_thread_hangs_for_ever() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HUNG], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.split() == ["EXCEPTION", "ended"]
