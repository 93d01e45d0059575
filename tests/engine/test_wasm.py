"""A hand-written component through `forward`, queue, planner and a simulated model, and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import inferlet
import trio

from pie.engine import Engine
from pie.guest.interfaces import ALL
from pie.guest.wasm import Fuel, WasmHost
from pie.ids import EventCode
from pie.messages import Launched
from pie.offload import inline
from pie.programs import NativeProgram, WasmProgram
from pie.testing import HashModel, LinearTiming, Outcome, SimulatedGpu, outcome_of, simulated_engine

DECODE = Path(__file__).parents[1] / "guests" / "decode.wat"


@asynccontextmanager
async def engine_and_guest(
    *models: SimulatedGpu,
) -> AsyncIterator[tuple[Engine, WasmProgram]]:
    """A simulated engine, and the decoding component preempted by fuel in virtual time."""
    host = WasmHost(ALL, preemption=Fuel(100_000, 0.001), offload=inline)
    try:
        program = WasmProgram(host, await host.load(DECODE))
        async with simulated_engine(*models) as engine:
            yield engine, program
        assert host.guests == 0
    finally:
        host.close()


async def _nothing_is_left(engine: Engine) -> None:
    stats = (await engine.stats())["simulated"]
    assert stats.pages_free == stats.pages
    assert stats.instances == stats.queued == stats.waiting == 0
    assert await engine.instances() == []
    assert all(service.activity.moving == 0 for service in engine.services)


async def _natively(tokens: int) -> str:
    """The same decoding, without wasm."""

    async def main(args: list[str]) -> str:
        context = await inferlet.Context.create(await inferlet.get_model())
        await context.fill("A")
        generation = await context.generate(
            max_tokens=tokens, sampler=inferlet.Greedy(), ignore_eos=True
        )
        return generation.text

    async with simulated_engine() as engine:
        return (await outcome_of(await engine.launch(NativeProgram(main)))).text


async def test_a_component_decodes_as_a_native_guest_does() -> None:
    async with engine_and_guest() as (engine, program):
        outcome = await outcome_of(await engine.launch(program, ["40"]))
        await _nothing_is_left(engine)

    assert outcome.text == await _natively(40)
    assert len(outcome.text) == 40


async def test_sixty_four_components_share_every_batch() -> None:
    gpu = SimulatedGpu()
    texts: list[str] = []

    async def read(launched: Launched) -> None:
        texts.append((await outcome_of(launched)).text)

    async with engine_and_guest(gpu) as (engine, program):
        async with trio.open_nursery() as nursery:
            for _ in range(64):
                nursery.start_soon(read, await engine.launch(program, ["20"]))
        await _nothing_is_left(engine)

    assert len(set(texts)) == 1
    assert len(gpu.steps) <= 21
    assert [step.passes for step in gpu.steps[2:-1]] == [64] * (len(gpu.steps) - 3)


async def test_a_spinning_component_costs_the_others_nothing_and_can_be_ended() -> None:
    """It is preempted by fuel, so its processor time is virtual time here."""

    async def seconds(*, spinning: bool) -> float:
        async with engine_and_guest() as (engine, program):
            if spinning:
                spinner = await engine.launch(program, ["1", "spin"])
                await trio.sleep(0.1)
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                for _ in range(64):
                    nursery.start_soon(outcome_of, await engine.launch(program, ["20"]))
            took = trio.current_time() - began
            if spinning:
                await engine.terminate(spinner.instance, "enough")
                outcome = await outcome_of(spinner)
                assert (outcome.event.code, outcome.event.text) == (EventCode.ABORTED, "enough")
            await _nothing_is_left(engine)
        return took

    assert await seconds(spinning=True) <= await seconds(spinning=False) / 0.95


async def _fails(*arguments: str) -> Outcome:
    async with engine_and_guest() as (engine, program):
        bystander = await engine.launch(program, ["30"])
        outcome = await outcome_of(await engine.launch(program, arguments))
        assert len((await outcome_of(bystander)).text) == 30
        await _nothing_is_left(engine)
    assert outcome.event.code is EventCode.EXCEPTION
    return outcome


async def test_a_trap_ends_that_guest_alone_with_one_line() -> None:
    outcome = await _fails("3", "trap")

    assert "unreachable" in outcome.event.text
    assert "\n" not in outcome.event.text


async def test_an_unknown_pointer_is_named() -> None:
    """Contract R1."""
    outcome = await _fails("3", "pointer")

    assert outcome.event.text == "execute: pointer 77 is not held by this instance (R1)"


async def test_one_guest_may_use_two_models_of_different_speed() -> None:
    """One model service per model: neither waits for the other."""
    fast = SimulatedGpu(HashModel("fast"), timing=LinearTiming(0.001))
    slow = SimulatedGpu(HashModel("slow"), timing=LinearTiming(0.1))

    async def main(args: list[str]) -> str:
        async def decode(name: str) -> str:
            context = await inferlet.Context.create(await inferlet.get_model(name))
            await context.fill(name)
            await context.generate(max_tokens=10, ignore_eos=True)
            return f"{name} {trio.current_time():.2f}"

        return ", ".join(await inferlet.gather(decode("slow"), decode("fast")))

    async with simulated_engine(fast, slow) as engine:
        outcome = await outcome_of(await engine.launch(NativeProgram(main)))

    assert outcome.text == "slow 1.00, fast 0.01"
    assert [len(fast.steps), len(slow.steps)] == [10, 10]
