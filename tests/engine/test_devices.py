"""Loaded models as devices: a call that is cancelled goes on, and the next one waits."""

from __future__ import annotations

import os
import threading

import pytest
import trio

from pie.batch import Batch, BatchResult
from pie.devices import StartedModel, ThreadedModel, device_of
from pie.multistep import MultiStep
from pie.signals import wait_any
from pie.starting import Bell
from pie.testing import HashModel
from tests.multi_steps import greedy_steps


class Starting(HashModel):
    """Makes each step when it is let, on a thread that knows nothing of the loop."""

    def __init__(self) -> None:
        super().__init__(multi_steps=3)
        self.bell, self.over = Bell(), True
        self.let = threading.Semaphore(0)
        self.begun = 0

    def start(self, batch: Batch, /) -> BatchResult:
        if batch.rows > 1:
            raise ValueError("not sound")
        result = self.run(batch)
        self._begin(lambda: self.let.acquire(timeout=10))
        return result

    def start_steps(self, steps: MultiStep, /) -> None:
        self._begin(lambda: self._make(steps))

    def _begin(self, work: object) -> None:
        assert self.over, "one call at a time"
        self.over = False
        self.begun += 1

        def call() -> None:
            assert callable(work)
            work()
            self.over = True
            os.eventfd_write(self.bell.descriptor, 1)

        threading.Thread(target=call).start()

    def _make(self, steps: MultiStep) -> None:
        follows = True
        while follows:
            assert self.let.acquire(timeout=10)
            result = self.run(steps.batch_of(steps.done))
            follows = steps.finish(result.tokens, result.sampled_finite)
            if follows and steps.announced:
                os.eventfd_write(self.bell.descriptor, 1)


def test_a_runner_gets_the_device_that_it_needs() -> None:
    assert isinstance(device_of(HashModel()), ThreadedModel)
    assert isinstance(device_of(Starting()), StartedModel)


@pytest.mark.slow
async def test_the_loop_hears_of_each_step_that_is_announced() -> None:
    runner, steps = Starting(), greedy_steps(3)
    device = StartedModel(runner)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(device.run_steps, steps)
        runner.let.release()
        with trio.move_on_after(0.1):
            await wait_any((steps.progress,))
        assert not steps.progress.ready(), "nobody has asked to hear of it"
        steps.announce()
        for done in (2, 3):
            runner.let.release()
            with trio.fail_after(10):
                await wait_any((steps.progress,))
            steps.progress.clear()
            assert (steps.done, steps.followed) == (done, 2)


@pytest.mark.slow
async def test_after_a_call_that_was_cancelled_the_next_one_waits() -> None:
    runner = Starting()
    device, batch = StartedModel(runner), greedy_steps(1).batch
    with trio.move_on_after(0.05) as scope:
        await device.run(batch)
    assert scope.cancelled_caught
    for other in (lambda: device.run(batch), lambda: device.apply(int, 3)):
        with trio.move_on_after(0.05) as scope:
            await other()
        assert scope.cancelled_caught
    assert runner.begun == 1
    runner.let.release(2)
    with trio.fail_after(10):
        result = await device.run(batch)
        assert await device.apply(int, 3) == 3
    assert runner.begun == 2
    assert result.tokens.tolist() == HashModel().run(batch).tokens.tolist()


async def test_what_the_runner_refuses_is_raised_and_holds_up_nothing() -> None:
    runner = Starting()
    device, batch = StartedModel(runner), greedy_steps(1).batch
    with pytest.raises(ValueError, match="not sound"):
        await device.run(_twice(batch))
    runner.let.release()
    with trio.fail_after(10):
        await device.run(batch)


async def test_a_model_in_a_thread_makes_several_steps_one_by_one() -> None:
    steps = greedy_steps(3)
    await ThreadedModel(HashModel()).run_steps(steps)
    assert steps.done == 3


def _twice(batch: Batch) -> Batch:
    """A batch of two rows."""
    return Batch(
        tokens=batch.tokens.repeat(2),
        positions=batch.positions.repeat(2),
        row_starts=batch.row_starts,
        pages=batch.pages,
        page_starts=batch.page_starts,
        lengths=batch.lengths,
    )
