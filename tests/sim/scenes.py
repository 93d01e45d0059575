"""Small scenes for rare places that seeds do not come by."""

from __future__ import annotations

from tempfile import TemporaryDirectory

import inferlet
import trio
from inferlet import host
from inferlet._native import bind

from pie.config import EngineConfig
from pie.ids import EventCode
from pie.programs import NativeProgram
from pie.testing import (
    HashModel,
    LostBatch,
    SimulatedGpu,
    outcome_of,
    run_native,
    simulated_engine,
)

EMBEDDING = 1
_read_embeddings = bind("pie:ext/ext", "read-embeddings")
_embedding_pollable = bind("pie:ext/ext", "[method]embedding-result.pollable")


async def _a_pass(queue: object, page: int, slot: int, *, stored: int | None = None) -> object:
    work = await host.create_pass(queue)
    await host.input_tokens(work, [65], [slot])
    await host.kv_cache(work, [page], slot + 1)
    await host.output_tokens(work, [0], 0.0)
    if stored is not None:
        await host.output_embeddings(work, [stored], [0])
    return await host.execute(work)


async def _queue() -> object:
    return await host.create_queue((await inferlet.get_model()).handle)


async def a_slot_is_written_again_after_a_failure() -> None:
    async def main(args: list[str]) -> str:
        queue = await _queue()
        (page,) = await host.allocate(queue, host.KV_PAGE, 1)
        await _a_pass(queue, page, 0)
        barrier = await host.synchronize(queue)
        await host.ready(await host.synchronization_pollable(barrier))
        good = await host.synchronization_get(barrier)
        result = await _a_pass(queue, page, 0)
        await host.ready(await host.pass_pollable(result))
        return f"{good} {await host.get_tokens(result)}"

    gpu = SimulatedGpu(HashModel(), faults={0: LostBatch()})
    async with simulated_engine(gpu) as engine:
        text = (await run_native(engine, main)).text
    assert text.startswith("False [")


async def a_vector_is_read_by_the_next_owner_of_its_slot() -> None:
    async def leave(args: list[str]) -> None:
        queue = await _queue()
        (page,) = await host.allocate(queue, host.KV_PAGE, 1)
        (slot,) = await host.allocate(queue, EMBEDDING, 1)
        await _a_pass(queue, page, 0, stored=slot)

    async def look(args: list[str]) -> None:
        queue = await _queue()
        result = await _read_embeddings(queue, await host.allocate(queue, EMBEDDING, 1))
        await host.ready(await _embedding_pollable(result))

    async with simulated_engine() as engine:
        for main in (leave, look):
            assert (await run_native(engine, main)).event.code is EventCode.COMPLETED


async def an_export_is_released_while_a_copy_of_its_page_waits() -> None:
    async def main(args: list[str]) -> str:
        queue = await _queue()
        (page,) = await host.allocate(queue, host.KV_PAGE, 1)
        await _a_pass(queue, page, 0)
        await host.export_resources(queue, host.KV_PAGE, [page], "x")
        result = await _a_pass(queue, page, 1)
        await host.release_exported(queue, host.KV_PAGE, "x")
        await host.ready(await host.pass_pollable(result))
        return str(await host.get_tokens(result))

    async with simulated_engine(SimulatedGpu(HashModel(pages=1))) as engine:
        assert (await run_native(engine, main)).text


async def an_instance_ends_while_a_copy_for_it_waits() -> None:
    async def hold(args: list[str]) -> None:
        context = await inferlet.Context.create(await inferlet.get_model())
        await context.fill("x" * 48)
        for _ in range(10):
            context.fill_tokens([await context.step(inferlet.Greedy())])

    async def main(args: list[str]) -> None:
        queue = await _queue()
        (page,) = await host.allocate(queue, host.KV_PAGE, 1)
        await host.ready(await host.pass_pollable(await _a_pass(queue, page, 0)))
        await host.export_resources(queue, host.KV_PAGE, [page], "x")
        await _a_pass(queue, page, 1)
        await inferlet.receive()

    async with simulated_engine(SimulatedGpu(HashModel(pages=5))) as engine:
        old = await engine.launch(NativeProgram(hold))
        await trio.sleep(0.001)
        young = await engine.launch(NativeProgram(main))
        await trio.sleep(0.025)
        await engine.terminate(young.instance)
        assert (await outcome_of(old)).event.code is EventCode.COMPLETED


async def an_importer_ends_while_it_waits() -> None:
    async def export(args: list[str]) -> None:
        queue = await _queue()
        (page,) = await host.allocate(queue, host.KV_PAGE, 1)
        result = await _a_pass(queue, page, 0)
        await host.export_resources(queue, host.KV_PAGE, [page], "x")
        await host.ready(await host.pass_pollable(result))

    async def wait(args: list[str]) -> None:
        await host.import_resources(await _queue(), host.KV_PAGE, "x")

    async with simulated_engine() as engine:
        exporter = await engine.launch(NativeProgram(export))
        await trio.sleep(0.001)
        importer = await engine.launch(NativeProgram(wait))
        await trio.sleep(0.001)
        await engine.terminate(importer.instance)
        assert (await outcome_of(exporter)).event.code is EventCode.COMPLETED


async def an_export_is_released_at_once() -> None:
    async def main(args: list[str]) -> None:
        queue = await _queue()
        (page,) = await host.allocate(queue, host.KV_PAGE, 1)
        await _a_pass(queue, page, 0)
        await inferlet.gather(
            host.export_resources(queue, host.KV_PAGE, [page], "x"), _release_soon(queue)
        )

    with TemporaryDirectory() as state:
        async with simulated_engine(config=EngineConfig(state_path=state)) as engine:
            assert (await run_native(engine, main)).event.code is EventCode.COMPLETED


async def _release_soon(queue: object) -> None:
    """When the pass has filled the page, and somebody else's step runs, or none."""
    barrier = await host.synchronize(queue)
    await host.ready(await host.synchronization_pollable(barrier))
    await host.release_exported(queue, host.KV_PAGE, "x")


async def a_step_has_hundreds_of_passes() -> None:
    async def main(args: list[str]) -> None:
        queue = await _queue()
        pages = await host.allocate(queue, host.KV_PAGE, 250)
        for page in pages:
            await _a_pass(queue, page, 0)
        barrier = await host.synchronize(queue)
        await host.ready(await host.synchronization_pollable(barrier))

    async with simulated_engine() as engine:
        assert (await run_native(engine, main)).event.code is EventCode.COMPLETED


SCENES = (
    a_slot_is_written_again_after_a_failure,
    a_vector_is_read_by_the_next_owner_of_its_slot,
    an_export_is_released_while_a_copy_of_its_page_waits,
    an_instance_ends_while_a_copy_for_it_waits,
    an_importer_ends_while_it_waits,
    an_export_is_released_at_once,
    a_step_has_hundreds_of_passes,
)
