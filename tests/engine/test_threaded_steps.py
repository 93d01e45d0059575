"""Several steps in one call of a model in a thread, which tells the loop of each."""

from __future__ import annotations

import os
import threading

import pytest
import trio

from pie.engine import ThreadedModel
from pie.multistep import Bell, MultiStep
from pie.signals import wait_any
from pie.testing import HashModel
from tests.multi_steps import greedy_steps


class Stepping(HashModel):
    """Makes a step when it is let, and fails where there is none to make."""

    def __init__(self) -> None:
        super().__init__(multi_steps=3)
        self.let = threading.Semaphore(0)

    def run_steps(self, steps: MultiStep, bell: Bell, /) -> None:
        if steps.done:
            raise ValueError("these steps have been made")
        follows = True
        while follows:
            assert self.let.acquire(timeout=10)
            result = self.run(steps.batch_of(steps.done))
            follows = steps.finish(result.tokens, result.sampled_finite)
            if steps.announced:
                os.eventfd_write(bell.descriptor, 1)


@pytest.mark.slow
async def test_the_loop_hears_of_each_step_that_is_announced() -> None:
    runner, steps = Stepping(), greedy_steps(3)
    device = ThreadedModel(runner)
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
async def test_what_the_runner_raises_is_raised() -> None:
    runner, steps = Stepping(), greedy_steps(3)
    device = ThreadedModel(runner)
    runner.let.release(3)
    await device.run_steps(steps)
    with pytest.raises(ValueError, match="have been made"):
        await device.run_steps(steps)
