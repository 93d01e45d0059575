"""The simulated accelerator as a device."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio

from pie.batch import Batch, ints
from pie.testing import HashModel, LinearTiming, SimulatedGpu


def _batch(rows: int) -> Batch:
    return Batch(
        tokens=ints([65] * rows),
        positions=ints(range(rows)),
        row_starts=ints([0, rows]),
        pages=ints(range(1 + rows // 16)),
        page_starts=ints([0, 1 + rows // 16]),
        lengths=ints([rows]),
    )


async def test_a_step_takes_its_time_and_is_recorded() -> None:
    gpu = SimulatedGpu(HashModel(), LinearTiming(1.0, 0.5))
    began = trio.current_time()
    await gpu.run(_batch(4))

    assert trio.current_time() - began == pytest.approx(3.0)
    assert [(step.passes, step.rows) for step in gpu.steps] == [(1, 4)]


async def test_jitter_is_that_of_the_seed() -> None:
    async def durations(seed: int) -> list[float]:
        gpu = SimulatedGpu(timing=LinearTiming(1.0, 0.0), seed=seed, jitter=0.5)
        for _ in range(20):
            await gpu.run(_batch(1))
        begins = [step.began for step in gpu.steps]
        return [round(b - a, 6) for a, b in pairwise(begins)]

    first = await durations(1)
    assert first == await durations(1) != await durations(2)
    assert len(set(first)) > 10
    assert all(1.0 <= seconds <= 1.5 for seconds in first)
