"""Contention for KV pages: nobody is ended for memory while it can move (contract R5)."""

from __future__ import annotations

from collections.abc import Sequence

import inferlet
import pytest
import trio

from pie.config import EngineConfig, Scheduling
from pie.engine import Engine
from pie.ids import EventCode
from pie.programs import NativeProgram
from pie.testing import (
    HashModel,
    LinearTiming,
    Outcome,
    SimulatedGpu,
    outcome_of,
    run_native,
    simulated_engine,
)

SIZE = 16
TOKENS = 8 * SIZE


def _config(host_pages: int | None = None) -> EngineConfig:
    return EngineConfig(scheduling=Scheduling(host_pages=host_pages))


async def _growing(args: list[str]) -> str:
    """Grows page by page, and tells how long it took."""
    began = trio.current_time()
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.fill(args[0])
    generation = await context.generate(
        max_tokens=TOKENS - len(args[0]), sampler=inferlet.Greedy(), ignore_eos=True
    )
    await inferlet.send(f"{trio.current_time() - began}")
    return generation.text


async def _run(
    pages: int, guests: int, host_pages: int | None = None
) -> tuple[float, list[Outcome]]:
    gpu = SimulatedGpu(HashModel(pages=pages))
    began = trio.current_time()
    async with simulated_engine(gpu, config=_config(host_pages)) as engine:
        outcomes = await _all(engine, [[f"{number:03}"] for number in range(guests)])
        took = trio.current_time() - began
        await _nothing_is_left(engine)
    return took, outcomes


async def _all(engine: Engine, jobs: Sequence[list[str]]) -> list[Outcome]:
    outcomes: dict[int, Outcome] = {}

    async def one(number: int, arguments: list[str]) -> None:
        outcomes[number] = await outcome_of(await engine.launch(NativeProgram(_growing), arguments))

    async with trio.open_nursery() as nursery:
        for number, arguments in enumerate(jobs):
            nursery.start_soon(one, number, arguments)
    return [outcomes[number] for number in range(len(jobs))]


async def _nothing_is_left(engine: Engine) -> None:
    for stats in (await engine.stats()).values():
        assert stats.pages_free == stats.pages
        assert stats.host_pages_free == stats.host_pages
        assert stats.instances == stats.queued == stats.waiting == 0


async def test_four_times_as_many_pages_as_there_are_are_shared_in_turn() -> None:
    """64 guests: all end with the right text, in at most three times the time of a large pool."""
    need = TOKENS // SIZE
    alone, wanted = await _run(64 * need, 64)
    crowded, outcomes = await _run(16 * need, 64, host_pages=64 * need)

    assert [o.text for o in outcomes] == [o.text for o in wanted]
    assert crowded <= 3 * alone


def _seconds(outcome: Outcome) -> float:
    return float(outcome.messages[0])


async def test_the_oldest_is_never_held_up() -> None:
    need = TOKENS // SIZE
    _, (alone, *_) = await _run(need, 1)
    _, outcomes = await _run(4 * need, 32, host_pages=32 * need)

    assert min(map(_seconds, outcomes)) <= 1.05 * _seconds(alone)


async def test_pages_come_back_bit_for_bit() -> None:
    """An idle guest's pages move out for a young one, and its text goes on as if nothing was."""

    async def pausing(args: list[str]) -> str:
        context = await inferlet.Context.create(await inferlet.get_model())
        await context.fill("the old one " * 5)
        first = await context.generate(max_tokens=8, sampler=inferlet.Greedy(), ignore_eos=True)
        if args:
            await inferlet.receive()
        second = await context.generate(max_tokens=8, sampler=inferlet.Greedy(), ignore_eos=True)
        return first.text + second.text

    async with simulated_engine() as engine:
        wanted = (await run_native(engine, pausing)).text
    async with simulated_engine(SimulatedGpu(HashModel(pages=8))) as engine:
        old = await engine.launch(NativeProgram(pausing), ["pause"])
        await trio.sleep(10)
        young = (await _all(engine, [["y" * 20]]))[0]
        moved = (await engine.stats())["simulated"].moved_out
        await engine.send(old.instance, "go on")
        outcome = await outcome_of(old)
        await _nothing_is_left(engine)

    assert young.event.code is EventCode.COMPLETED
    assert moved >= 4
    assert outcome.text == wanted


async def test_exports_that_nobody_uses_move_out_and_come_back_on_import() -> None:
    async def export(args: list[str]) -> None:
        context = await inferlet.Context.create(await inferlet.get_model())
        await context.fill(args[0] * SIZE * 2)
        await context.flush()
        await inferlet.host.export_resources(context.queue, 0, context.pointers, args[0])

    async def use(args: list[str]) -> str:
        model = await inferlet.get_model()
        context = await inferlet.Context.create(model)
        pages = await inferlet.host.import_resources(context.queue, 0, args[0])
        work = await inferlet.host.create_pass(context.queue)
        own = await inferlet.host.allocate(context.queue, 0, 1)
        await inferlet.host.input_tokens(work, [65], [2 * SIZE])
        await inferlet.host.kv_cache(work, [*pages, *own], 1)
        await inferlet.host.output_tokens(work, [0], 0.0)
        result = await inferlet.host.execute(work)
        await inferlet.host.ready(await inferlet.host.pass_pollable(result))
        return str(await inferlet.host.get_tokens(result))

    async def tokens(pages: int) -> list[str]:
        gpu = SimulatedGpu(HashModel(pages=pages))
        async with simulated_engine(gpu, config=_config(16)) as engine:
            for name in "abcd":
                assert (await run_native(engine, export, [name])).event.code is EventCode.COMPLETED
            return [(await run_native(engine, use, [name])).text for name in "abcd"]

    assert await tokens(4) == await tokens(100)


async def test_a_ring_of_guests_that_wait_for_each_other_with_pages_in_hand_goes_on() -> None:
    """Each holds a full context and waits for a message of the next: idle, so it makes room."""
    count = 8

    async def member(args: list[str]) -> str:
        number = int(args[0])
        context = await inferlet.Context.create(await inferlet.get_model())
        await context.fill(f"{number}" * SIZE * 3)
        await context.step(inferlet.Greedy())
        subscription = await inferlet.subscribe(f"{number}")
        await inferlet.sleep(1)
        if number == 0:
            await inferlet.broadcast("1", "go")
        await subscription.next()
        token = await context.step(inferlet.Greedy())
        await inferlet.broadcast(f"{(number + 1) % count}", "go")
        return str(token)

    gpu = SimulatedGpu(HashModel(pages=8))
    async with simulated_engine(gpu, config=_config(64)) as engine:
        with trio.fail_after(1000):
            launched = [await engine.launch(NativeProgram(member), [str(n)]) for n in range(count)]
            outcomes = [await outcome_of(one) for one in launched]
        await _nothing_is_left(engine)

    assert {outcome.event.code for outcome in outcomes} == {EventCode.COMPLETED}


@pytest.mark.parametrize("host_pages", [0, 3])
async def test_without_room_in_host_memory_the_first_in_line_ends(host_pages: int) -> None:
    """Contract R5: with event 5 and the numbers; nobody else does."""

    async def holding(_: list[str]) -> str:
        context = await inferlet.Context.create(await inferlet.get_model())
        await context.fill("x" * 6 * SIZE)
        await context.step(inferlet.Greedy())
        return await inferlet.receive()

    gpu = SimulatedGpu(HashModel(pages=8))
    async with simulated_engine(gpu, config=_config(host_pages)) as engine:
        old = await engine.launch(NativeProgram(holding))
        await trio.sleep(1)
        (young,) = await _all(engine, [["y" * 6 * SIZE]])
        await engine.send(old.instance, "still here")
        assert (await outcome_of(old)).text == "still here"
        await _nothing_is_left(engine)

    assert young.event.code is EventCode.OUT_OF_RESOURCES
    assert "needs 6 more; 2 of 8 are free" in young.event.text
    assert f"of {host_pages} host pages" in young.event.text


async def test_idle_instances_make_room_before_running_ones() -> None:
    """Contract R5: an old idle one rather than a young running one."""
    running_tokens = 4 * SIZE

    async def idle(_: list[str]) -> str:
        context = await inferlet.Context.create(await inferlet.get_model())
        await context.fill("i" * 3 * SIZE)
        await context.step(inferlet.Greedy())
        await inferlet.receive()
        return str(await context.step(inferlet.Greedy()))

    async def running(_: list[str]) -> str:
        context = await inferlet.Context.create(await inferlet.get_model())
        await context.fill("r")
        await context.generate(max_tokens=running_tokens - 1, ignore_eos=True)
        return str(trio.current_time())

    gpu = SimulatedGpu(HashModel(pages=8), timing=LinearTiming(1.0, 0.0))
    async with simulated_engine(gpu) as engine:
        old = await engine.launch(NativeProgram(idle))
        await trio.sleep(5)
        first = await engine.launch(NativeProgram(running))
        second = await engine.launch(NativeProgram(running))
        ends = [float((await outcome_of(one)).text) for one in (first, second)]
        await engine.send(old.instance, "go")
        assert (await outcome_of(old)).event.code is EventCode.COMPLETED

    assert max(ends) <= 5 + running_tokens + 1


async def test_while_host_memory_has_room_a_request_waits_for_those_who_share() -> None:
    """Contract R5: an importer that idles holds pages that cannot move, but may yet let go."""

    async def share(args: list[str]) -> str:
        context = await inferlet.Context.create(await inferlet.get_model())
        await context.fill("s" * 3 * SIZE)
        await context.flush()
        await inferlet.host.export_resources(context.queue, 0, context.pointers, "shared")
        return await inferlet.receive()

    async def use(args: list[str]) -> str:
        model = await inferlet.get_model()
        queue = await inferlet.host.create_queue(model.handle)
        pages = await inferlet.host.import_resources(queue, 0, "shared")
        await inferlet.receive()
        await inferlet.host.release_exported(queue, 0, "shared")
        await inferlet.host.deallocate(queue, 0, pages)
        return "let go"

    async with simulated_engine(SimulatedGpu(HashModel(pages=8))) as engine:
        owner = await engine.launch(NativeProgram(share))
        await trio.sleep(1)
        importer = await engine.launch(NativeProgram(use))
        await trio.sleep(1)
        waiting = await engine.launch(NativeProgram(_growing), ["y" * 6 * SIZE])
        await trio.sleep(1)
        assert len(await engine.instances()) == 3
        for instance, text in ((owner, "done"), (importer, "go")):
            await engine.send(instance.instance, text)
        assert (await outcome_of(waiting)).event.code is EventCode.COMPLETED
        assert (await outcome_of(importer)).text == "let go"
        await _nothing_is_left(engine)


async def test_who_gets_no_room_ends_even_if_its_guest_never_looks() -> None:
    """Contract R5: a page copy that has no room ends the instance at once, with event 5."""

    async def holding(_: list[str]) -> str:
        context = await inferlet.Context.create(await inferlet.get_model())
        await context.fill("x" * 7 * SIZE)
        await context.step(inferlet.Greedy())
        return await inferlet.receive()

    async def writing(args: list[str]) -> None:
        context = await inferlet.Context.create(await inferlet.get_model())
        await context.fill("w" * 8)
        await context.flush()
        await inferlet.host.export_resources(context.queue, 0, context.pointers, "w")
        await context.fill("more")
        await context.flush()
        await inferlet.receive()

    gpu = SimulatedGpu(HashModel(pages=8))
    async with simulated_engine(gpu, config=_config(0)) as engine:
        old = await engine.launch(NativeProgram(holding))
        await trio.sleep(1)
        outcome = await run_native(engine, writing)
        await engine.send(old.instance, "still here")
        assert (await outcome_of(old)).text == "still here"

    assert outcome.event.code is EventCode.OUT_OF_RESOURCES
    assert "needs 1 more; 0 of 8 are free" in outcome.event.text
