"""The host's own cost, charged as virtual time."""

from __future__ import annotations

import inferlet
import pytest
import trio

from pie.programs import NativeProgram
from pie.testing import HostCost, LinearTiming, SimulatedGpu, outcome_of, simulated_engine

TOKENS = 20


async def looping(_: list[str]) -> None:
    context = await inferlet.Context.create(await inferlet.get_model())
    context.fill_tokens([65])
    for _step in range(TOKENS):
        context.fill_tokens([await context.step(inferlet.Greedy())])


async def seconds_of(guests: int, host: HostCost | None, step_seconds: float) -> float:
    gpu = SimulatedGpu(timing=LinearTiming(step_seconds, 0.0))
    async with simulated_engine(gpu, host=host) as engine, trio.open_nursery() as nursery:
        began = trio.current_time()
        for _ in range(guests):
            nursery.start_soon(outcome_of, await engine.launch(NativeProgram(looping)))
    return trio.current_time() - began


@pytest.mark.parametrize("guests", [1, 4])
async def test_each_pass_takes_its_time_on_one_processor(guests: int) -> None:
    """With a costly step, all guests pass the host one after the other between two steps."""
    took = await seconds_of(guests, HostCost(0.001), 0.1)

    assert took == pytest.approx(TOKENS * (0.1 + 0.001 * guests), rel=0.06)


async def test_a_free_accelerator_is_as_fast_as_the_host() -> None:
    took = await seconds_of(50, HostCost(0.001), 0.0)

    assert took == pytest.approx(50 * TOKENS * 0.001, rel=0.01)


async def test_a_host_without_cost_changes_nothing() -> None:
    free, none = HostCost(0.0), None

    assert await seconds_of(4, free, 0.01) == pytest.approx(await seconds_of(4, none, 0.01))
