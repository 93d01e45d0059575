"""Inferlets run natively in the real engine, on the simulated model."""

from __future__ import annotations

import inferlet

from pie.testing import SimulatedGpu, run_native, simulated_engine


async def complete(args: list[str]) -> str:
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.fill("Once upon a time" + " ".join(args))
    generation = await context.generate(sampler=inferlet.Greedy(), stop=inferlet.max_tokens(8))
    return generation.text


async def test_a_guest_completes_a_text() -> None:
    async with simulated_engine() as engine:
        first = await run_native(engine, complete)
        second = await run_native(engine, complete)
        other = await run_native(engine, complete, [", a frog"])

    assert len(first.text) == 8
    assert first.text == second.text != other.text


async def test_nothing_is_left_when_a_guest_has_ended() -> None:
    async with simulated_engine(SimulatedGpu()) as engine:
        await run_native(engine, complete)

        stats = (await engine.stats())["simulated"]
        assert stats.pages_free == stats.pages
        assert stats.instances == stats.queued == stats.waiting == 0
        assert stats.pages_peak > 0
        assert await engine.instances() == []
