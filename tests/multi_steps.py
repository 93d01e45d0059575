"""Steps of one call, and what is started, for tests of devices."""

from __future__ import annotations

import select

import numpy as np

from pie.batch import Batch, floats, ints
from pie.multistep import MultiStep
from pie.starting import StartingRunner


def greedy_steps(count: int) -> MultiStep:
    """`count` steps of one row, which begin at slot 0 of page 0."""
    batch = Batch(
        tokens=ints([65]),
        positions=ints([0]),
        row_starts=ints([0, 1]),
        pages=ints([0]),
        page_starts=ints([0, 1]),
        lengths=ints([1]),
        sampled_rows=ints([0]),
        temperature=floats([0]),
        top_k=ints([0]),
        top_p=floats([1]),
        min_p=floats([0]),
        uniform=floats([0]),
    )
    uniform = np.zeros((count, 1), np.float32)
    return MultiStep(batch=batch, uniform=uniform, stops=ints(), stop_starts=ints([0, 0]))


def await_end(runner: StartingRunner) -> None:
    """Block until what was started is over."""
    ringing = select.poll()
    ringing.register(runner.bell.descriptor, select.POLLIN)
    while not runner.over:
        assert ringing.poll(10_000), "no bell for 10 s"
        runner.bell.silence()
