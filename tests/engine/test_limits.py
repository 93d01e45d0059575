"""Every limit of the configuration, by name, with what happens at it.

Those of calls that have tests of their own are not repeated: `max_handles`, `memory_bytes` in
tests/guest, `max_pass_outputs`, `max_result_entries`, `max_blob_bytes` in test_robustness.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import inferlet
import pytest
import trio
from inferlet import host

from pie.config import EngineConfig, Limits
from pie.engine import open_engine
from pie.errors import UsageError
from pie.guest.interfaces import ALL
from pie.guest.wasm import WasmHost
from pie.ids import EventCode
from pie.messages import Event
from pie.programs import NativeProgram, WasmProgram
from pie.testing import LinearTiming, SimulatedGpu, outcome_of, run_native, simulated_engine

DECODE = Path(__file__).parents[1] / "guests" / "decode.wat"


async def _queues(args: list[str]) -> None:
    model = await inferlet.get_model()
    for _ in range(4):
        await host.create_queue(model.handle)


async def _pages(args: list[str]) -> None:
    model = await inferlet.get_model()
    queue = await host.create_queue(model.handle)
    await host.allocate(queue, 0, 2)
    await host.allocate(queue, 1, 4)
    await host.allocate(queue, 0, 2)


async def _long_pass(args: list[str]) -> None:
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.fill("x" * 4)
    await context.flush()


async def _distribution(args: list[str]) -> None:
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.fill("x")
    await context.distribution(top_k=4)


async def _message(args: list[str]) -> None:
    await inferlet.send("four")


async def _returned(args: list[str]) -> str:
    return "four"


async def _broadcast(args: list[str]) -> None:
    await inferlet.broadcast("t", "four")


async def _key(args: list[str]) -> None:
    await inferlet.store.set("four", "")


async def _value(args: list[str]) -> None:
    await inferlet.store.set("k", "four")


async def _subscriptions(args: list[str]) -> None:
    for number in range(4):
        await inferlet.subscribe(str(number))


@pytest.mark.parametrize(
    ("name", "main", "text"),
    [
        ("max_queues", _queues, "create-queue: 3 queues were made, the limit (max_queues)"),
        ("max_pages", _pages, "allocate-resources: 2 KV pages are held and 2 more asked, the lim"),
        ("max_pass_tokens", _long_pass, "input-tokens: max batch tokens exceeded: 4 inputs in"),
        ("max_dist_size", _distribution, "output-distributions: 4 entries asked, the limit is 3"),
        ("max_message_bytes", _message, "send: 4 bytes, the limit is 3"),
        ("max_message_bytes", _returned, "set-return: 4 bytes, the limit is 3"),
        ("max_message_bytes", _broadcast, "broadcast: 4 bytes, the limit is 3"),
        ("max_key_bytes", _key, "store-set: "),
        ("max_value_bytes", _value, "store-set: a value of 4 bytes, the limit is 3"),
        ("max_subscriptions", _subscriptions, "subscribe: 3 subscriptions are open, the limit"),
    ],
)
async def test_beyond_a_limit_the_call_traps_and_at_it_nothing_happens(
    name: str, main: Any, text: str
) -> None:
    async def event(limit: int) -> tuple[EventCode, str]:
        limits = attrs.evolve(Limits(), **{name: limit})
        async with simulated_engine(config=EngineConfig(limits=limits)) as engine:
            outcome = await run_native(engine, main)
        return outcome.event.code, outcome.event.text

    assert (await event(4))[0] is EventCode.COMPLETED
    code, said = await event(3)
    assert code is EventCode.EXCEPTION
    assert said.startswith(text)


async def test_with_too_many_passes_in_flight_execute_waits() -> None:
    """Contract F5: `max_passes_in_flight`; nothing is lost."""

    async def main(args: list[str]) -> str:
        model = await inferlet.get_model()
        queue = await host.create_queue(model.handle)
        (page,) = await host.allocate(queue, 0, 1)
        times = []
        for slot in range(6):
            work = await host.create_pass(queue)
            await host.input_tokens(work, [65], [slot])
            await host.kv_cache(work, [page], slot + 1)
            await host.execute(work)
            times.append(round(trio.current_time(), 1))
        return str(times)

    limits = Limits(max_passes_in_flight=2)
    gpu = SimulatedGpu(timing=LinearTiming(1.0, 0.0))
    async with simulated_engine(gpu, config=EngineConfig(limits=limits)) as engine:
        outcome = await run_native(engine, main)

    assert outcome.text == "[0.0, 0.0, 1.0, 1.0, 2.0, 2.0]"


async def test_launches_beyond_the_limits_are_refused() -> None:
    async def wait(args: list[str]) -> None:
        await trio.sleep_forever()

    config = EngineConfig(max_instances=3, max_instances_per_user=2)
    async with simulated_engine(config=config) as engine:
        ann = [await engine.launch(NativeProgram(wait), user="ann") for _ in range(2)]
        for launched in ann:
            with pytest.raises(UsageError, match="2 instances of user 'ann' are running, the lim"):
                await engine.launch(NativeProgram(wait), user="ann")
            await engine.terminate(launched.instance)
            await engine.launch(NativeProgram(wait), user="ann")
        await engine.launch(NativeProgram(wait), user="bob")
        with pytest.raises(UsageError, match="3 instances are running, the limit"):
            await engine.launch(NativeProgram(wait), user="eve")


async def test_a_guest_of_a_user_without_pages_left_traps_and_is_told_why() -> None:
    """It would else wait for what only the user's own guests could let go."""

    async def grow(args: list[str]) -> None:
        model = await inferlet.get_model()
        queue = await host.create_queue(model.handle)
        await host.allocate(queue, 0, int(args[0]))
        await host.send("grown")
        await trio.sleep_forever()

    config = EngineConfig(max_pages_per_user=5)
    async with simulated_engine(config=config) as engine:
        first = await engine.launch(NativeProgram(grow), ["3"], user="ann")
        assert await anext(first.outbox) == Event(EventCode.MESSAGE, "grown")
        beyond = await run_native(engine, grow, ["3"], user="ann")
        other = await engine.launch(NativeProgram(grow), ["5"], user="bob")
        assert await anext(other.outbox) == Event(EventCode.MESSAGE, "grown")
        assert await engine.pages_of() == {first.instance: 3, other.instance: 5}

    assert beyond.event.code is EventCode.EXCEPTION
    assert "user 'ann' has 3 KV pages in instances and exports and asks for 3" in beyond.event.text


@pytest.mark.slow
async def test_a_component_that_uses_up_its_processor_time_is_ended() -> None:
    """`cpu_seconds`: real time and epochs, since virtual slices take none."""
    limits = Limits(cpu_seconds=0.2)
    wasm = WasmHost(ALL)
    try:
        program = WasmProgram(wasm, await wasm.load(DECODE))
        gpu = SimulatedGpu(timing=LinearTiming(0.001))
        async with open_engine([gpu], EngineConfig(limits=limits)) as engine:
            spinning = await outcome_of(await engine.launch(program, ["1", "spin"]))
            decoding = await outcome_of(await engine.launch(program, ["5"]))
    finally:
        wasm.close()

    assert spinning.event.code is EventCode.EXCEPTION
    assert "s of processor time, the limit is 0.2 s (cpu_seconds)" in spinning.event.text
    assert len(decoding.text) == 5
