"""A device that raises or hangs, and the guard around it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable

import pytest
import trio

from pie.batch import Batch, BatchResult, ModelRunner, ints
from pie.devices import ThreadedModel
from pie.errors import DeviceStalled, GuestError, PassFailed
from pie.guarded import MAX_REASON, GuardedDevice
from pie.testing import (
    Crash,
    Hang,
    HashModel,
    LinearTiming,
    LostBatch,
    SimulatedGpu,
    SlowBatch,
)
from tests.multi_steps import greedy_steps

SECOND = LinearTiming(1.0, 0.0)


def a_batch(token: int = 65) -> Batch:
    """One row on page 0."""
    return Batch(
        tokens=ints([token]),
        positions=ints([0]),
        row_starts=ints([0, 1]),
        pages=ints([0]),
        page_starts=ints([0, 1]),
        lengths=ints([1]),
    )


def guarded(gpu: SimulatedGpu | None = None) -> tuple[SimulatedGpu, GuardedDevice]:
    gpu = gpu or SimulatedGpu(timing=SECOND)
    return gpu, GuardedDevice(gpu, 10.0)


async def failure_of(call: Awaitable[object]) -> PassFailed:
    with pytest.raises(PassFailed) as failed:
        await call
    return failed.value


async def test_what_a_runner_raises_fails_the_step_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Loudly, with its traceback: it is somebody's bug. The next step runs."""
    gpu, device = guarded()
    gpu.fail_next(Crash("it\n  smokes"), Crash("x" * 2000))
    error = await failure_of(device.run(a_batch()))
    long = await failure_of(device.run(a_batch()))
    assert (device.failures, device.consecutive_failures) == (2, 2)
    await device.run(a_batch())

    assert str(error) == "a step failed: DeviceCrash: it smokes"
    assert len(str(long)) < MAX_REASON + 50
    assert (device.failures, device.consecutive_failures) == (2, 0)
    assert device.last_failure == str(long)
    assert device.running_since is None
    record = caplog.records[0]
    assert (record.levelno, record.getMessage()) == (
        logging.ERROR,
        "model simulated: a step failed",
    )
    assert record.exc_info is not None


async def test_what_a_device_says_itself_is_passed_on() -> None:
    """A lost step counts as a failure; that a guest's command is refused does not."""
    gpu, device = guarded()

    def refuse() -> None:
        raise GuestError("no adapter")

    with pytest.raises(GuestError, match="no adapter"):
        await device.apply(refuse)
    gpu.fail_next_call(LostBatch("that slot holds nothing"))
    assert "holds nothing" in str(await failure_of(device.apply(gpu.runner.read_pages, ints([0]))))
    assert (device.failures, device.last_failure) == (0, "")
    gpu.fail_next(LostBatch("no luck"))
    assert str(await failure_of(device.run(a_batch()))) == "no luck"

    assert (device.failures, device.consecutive_failures) == (1, 1)
    assert device.last_failure == "no luck"


async def test_a_call_that_raises_fails_as_a_step_does() -> None:
    _, device = guarded()

    def broken() -> None:
        raise ZeroDivisionError("really")

    error = await failure_of(device.apply(broken))
    assert str(error) == "broken failed: ZeroDivisionError: really"
    assert device.failures == 1


async def test_a_step_that_takes_too_long_fails_and_the_next_wait_for_it() -> None:
    """Those fail as well after so long; when it has returned, all is as before."""
    gpu, device = guarded()
    gpu.fail_next(Hang(25.0))
    began = trio.current_time()
    first = await failure_of(device.run(a_batch()))
    assert trio.current_time() - began == 10
    assert device.running_since == began
    second = await failure_of(device.run(a_batch()))
    assert trio.current_time() - began == 20
    await device.run(a_batch())
    assert trio.current_time() - began == 26

    assert isinstance(first, DeviceStalled)
    assert str(first) == "a step has taken 10.0 s and may still be at it, the limit is 10 s"
    assert isinstance(second, DeviceStalled)
    assert str(second) == (
        "a step has waited 10.0 s for an earlier call to return, the limit is 10 s"
    )
    assert (device.failures, device.consecutive_failures) == (2, 0)
    assert len(gpu.steps) == 2


async def test_health_is_known_also_when_nobody_asks_the_device_for_anything() -> None:
    """A server that says it is ill gets no more work that would show that it is not."""
    gpu, device = guarded()
    gpu.fail_next(Hang(25.0))
    began = trio.current_time()
    states = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(failure_of, device.run(a_batch()))
        for second in (5, 10, 15, 24, 26):
            await trio.sleep_until(began + second)
            states.append((device.running_since, device.stalled(trio.current_time())))

    assert states == [(began, False), (began, True), (began, True), (began, True), (None, False)]


async def test_what_a_hung_step_writes_is_written_before_anything_else() -> None:
    """By then its pages may be somebody else's: who has them now writes later."""
    model = HashModel()
    wrote: list[int] = []

    class Runner(HashModel):
        def run(self, batch: Batch) -> BatchResult:
            wrote.append(int(batch.tokens[0]))
            return model.run(batch)

    gpu, device = guarded(SimulatedGpu(Runner(), SECOND))
    gpu.fail_next(Hang(15.0))
    await failure_of(device.run(a_batch(1)))
    assert wrote == []
    await device.run(a_batch(2))

    assert wrote == [1, 2]


async def test_a_step_that_can_be_stopped_is_stopped() -> None:
    """On a device whose calls end when they are cancelled."""
    gpu, device = guarded()
    gpu.fail_next(SlowBatch(100.0))
    await failure_of(device.run(a_batch()))
    began = trio.current_time()
    await device.run(a_batch())

    assert trio.current_time() - began == 1


async def test_each_good_step_is_told_with_its_seconds() -> None:
    gpu = SimulatedGpu(timing=SECOND)
    told: list[tuple[int, float]] = []
    device = GuardedDevice(
        gpu, 10.0, on_step=lambda batch, seconds: told.append((batch.rows, seconds))
    )
    gpu.fail_next(SlowBatch(1.0), LostBatch(), Hang(15.0), SlowBatch(2.0))
    await device.run(a_batch())
    for _ in range(2):
        await failure_of(device.run(a_batch()))
    await device.run(a_batch())

    assert told == [(1, 1.0), (1, 2.0)]


async def test_each_step_of_a_good_call_is_told_with_its_part_of_the_seconds() -> None:
    gpu = SimulatedGpu(timing=SECOND)
    told: list[float] = []
    device = GuardedDevice(gpu, 10.0, on_step=lambda _, seconds: told.append(seconds))
    gpu.fail_next(SlowBatch(3.0))
    await device.run_steps(greedy_steps(4))
    gpu.fail_next(SlowBatch(1.0), LostBatch())
    steps = greedy_steps(4)
    await failure_of(device.run_steps(steps))

    assert told == [1.5] * 4
    assert (steps.done, steps.followed) == (1, 1)


async def test_a_call_of_several_steps_that_hangs_is_given_up() -> None:
    gpu, device = guarded()
    gpu.fail_next(SlowBatch(1.0), Hang(60.0))
    steps = greedy_steps(4)
    began = trio.current_time()
    assert isinstance(await failure_of(device.run_steps(steps)), DeviceStalled)

    assert trio.current_time() - began == 10
    assert steps.done == 1


async def test_at_the_end_nobody_waits_longer_than_is_said() -> None:
    """Neither for the call that runs, nor for all that come after it together."""
    gpu, device = guarded()
    gpu.fail_next(Hang(1e6))
    began = trio.current_time()

    async def run() -> None:
        error = await failure_of(device.run(a_batch()))
        assert str(error) == "a step has taken 5.0 s and may still be at it, the engine ends"
        for _ in range(3):
            await failure_of(device.run(a_batch()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.sleep(2)
        device.give_up_after(3)

    assert trio.current_time() - began == 5


class Blocked(HashModel):
    """Its steps wait in their thread until they may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = [threading.Event() for _ in range(3)]
        self.entered: list[int] = []
        self.left: list[int] = []

    def run(self, batch: Batch) -> BatchResult:
        token = int(batch.tokens[0])
        self.entered.append(token)
        self.gates[token].wait()
        result = super().run(batch)
        self.left.append(token)
        return result


@pytest.mark.slow
async def test_a_thread_that_hangs_has_the_model_to_itself_until_it_returns() -> None:
    model = Blocked()
    device = GuardedDevice(ThreadedModel(model), 0.1)
    model.gates[2].set()
    try:
        for token in (0, 1):
            with pytest.raises(DeviceStalled):
                await device.run(a_batch(token))
        assert device.stalled(trio.current_time())
        model.gates[0].set()
        device.limit_seconds = 60.0
        await device.run(a_batch(2))
        assert (model.entered, model.left) == ([0, 2], [0, 2])
    finally:
        for gate in model.gates:
            gate.set()


@pytest.mark.slow
async def test_a_thread_that_raises_fails_its_step() -> None:
    class Broken(HashModel):
        def run(self, batch: Batch) -> BatchResult:
            raise MemoryError("no more")

    runner: ModelRunner = Broken()
    device = GuardedDevice(ThreadedModel(runner), 10)
    assert str(await failure_of(device.run(a_batch()))) == "a step failed: MemoryError: no more"
