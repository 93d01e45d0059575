"""Adapters and embedding slots through the host interfaces, in queue order (contract X8, X10)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import inferlet
import pytest
from inferlet import host

from pie.ids import EventCode
from pie.testing import HashModel, HostCalls, SimulatedGpu, run_native, simulated_engine

ADAPTER = 2
Main = Callable[[list[str]], Awaitable[str | None]]


_call = HostCalls().call


async def _upload(queue: Any, slot: int, data: bytes) -> None:
    blob = await host.new_blob(data)
    await _call("upload-adapter", queue, slot, "name", blob)


async def _submit(queue: Any, page: int, adapter: int | None, seed: int | None = None) -> Any:
    """A pass of eight tokens with a prediction after each: enough to tell adapters apart."""
    work = await host.create_pass(queue)
    await host.input_tokens(work, list(range(65, 73)), list(range(8)))
    await host.kv_cache(work, [page], 8)
    await host.output_tokens(work, list(range(8)), 0.0)
    if adapter is not None:
        await _call("set-adapter", work, adapter)
    if seed is not None:
        await _call("set-adapter-seed", work, seed)
    return await host.execute(work)


async def _text(queue: Any, page: int, adapter: int | None, seed: int | None = None) -> str:
    result = await _submit(queue, page, adapter, seed)
    await host.ready(await host.pass_pollable(result))
    return bytes(await host.get_tokens(result)).decode()


async def _queue_and_slots() -> tuple[Any, list[int], list[int]]:
    model = await inferlet.get_model()
    queue = await host.create_queue(model.handle)
    return queue, await host.allocate(queue, 0, 2), await host.allocate(queue, ADAPTER, 2)


async def _result(main: Main) -> str:
    async with simulated_engine(SimulatedGpu(HashModel())) as engine:
        return (await run_native(engine, main)).text


async def test_passes_and_uploads_of_a_queue_keep_their_order() -> None:
    """Contract Q1: a pass sees the adapter as it was when the pass was submitted."""

    async def main(args: list[str]) -> str:
        queue, pages, slots = await _queue_and_slots()
        bare = await _text(queue, pages[0], slots[0])
        await _upload(queue, slots[0], b"hash one")
        result = await _submit(queue, pages[0], slots[0])
        await _upload(queue, slots[0], b"hash two")
        second = await _text(queue, pages[1], slots[0])
        first = bytes(await host.get_tokens(result)).decode()
        await _upload(queue, slots[1], b"hash one")
        again = await _text(queue, pages[1], slots[1])
        without = await _text(queue, pages[1], None)
        return f"{bare == without} {first == again} {len({bare, first, second})}"

    assert await _result(main) == "True True 3"


async def test_a_download_gives_back_what_was_uploaded() -> None:
    async def main(args: list[str]) -> str:
        queue, _, slots = await _queue_and_slots()
        await _upload(queue, slots[1], b"hash of an adapter")
        result = await _call("download-adapter", queue, slots[1], "x")
        await host.ready(await host.blob_pollable(result))
        blob = await host.blob_get(result)
        assert await host.blob_get(result) is None
        return bytes(await host.blob_read(blob, 0, 100)).decode()

    assert await _result(main) == "hash of an adapter"


async def test_the_evolution_strategy_is_in_the_queues_order() -> None:
    async def main(args: list[str]) -> str:
        queue, pages, (slot, _) = await _queue_and_slots()
        await _call("initialize-adapter", queue, slot, 4, 8.0, 2, 0.5, 0.1)
        mean = await _text(queue, pages[0], slot)
        noisy = {seed: await _text(queue, pages[0], slot, seed) for seed in (-1, 0, 1)}
        await _call("update-adapter", queue, slot, [1.0, 2.0], [0, 1], 0.0)
        updated = await _text(queue, pages[0], slot)
        return str(len({mean, updated, *noisy.values()}))

    assert await _result(main) == "5"


async def test_a_slots_next_owner_finds_nothing_in_it() -> None:
    """Contract R3."""

    async def leave(args: list[str]) -> None:
        queue, pages, slots = await _queue_and_slots()
        embeddings = await host.allocate(queue, 1, 1)
        await _upload(queue, slots[0], b"hash of a secret")
        work = await host.create_pass(queue)
        await host.input_tokens(work, [65], [0])
        await host.kv_cache(work, [pages[0]], 1)
        await host.output_embeddings(work, embeddings, [0])
        await host.execute(work)

    async def find(args: list[str]) -> str:
        queue, pages, slots = await _queue_and_slots()
        embeddings = await host.allocate(queue, 1, 1)
        vectors = await _call("read-embeddings", queue, embeddings)
        await host.ready(await _call("embedding-result.pollable", vectors))
        found = await _call("embedding-result.get", vectors)
        same = await _text(queue, pages[0], slots[0]) == await _text(queue, pages[0], None)
        return f"{found} {same}"

    async with simulated_engine(SimulatedGpu(HashModel())) as engine:
        left = await run_native(engine, leave)
        assert left.event.code is EventCode.COMPLETED, left.event
        assert (await run_native(engine, find)).text == "[[0.0]] True"


async def test_vectors_are_read_after_the_pass_that_stores_them() -> None:
    """Contract Q1, X10."""

    async def main(args: list[str]) -> str:
        queue, pages, _ = await _queue_and_slots()
        vectors_at = await host.allocate(queue, 1, 2)
        work = await host.create_pass(queue)
        await host.input_tokens(work, [65, 66], [0, 1])
        await host.kv_cache(work, [pages[0]], 2)
        await host.output_embeddings(work, vectors_at, [0, 1])
        await host.execute(work)
        vectors = await _call("read-embeddings", queue, vectors_at)
        assert await _call("embedding-result.get", vectors) is None
        await host.ready(await _call("embedding-result.pollable", vectors))
        (first,), (second,) = await _call("embedding-result.get", vectors)
        return str(first > 0 and second > 0 and first != second)

    assert await _result(main) == "True"


@pytest.mark.parametrize(
    ("function", "arguments", "text"),
    [
        ("set-adapter-seed", (5,), "set-adapter-seed: Adapter not set (X6)"),
        ("upload", (b"junk",), "upload-adapter: "),
        ("initialize", (0, 1.0, 2, 0.5, 0.1), "initialize-adapter: rank 0 is not in 1..64 (X8)"),
        ("initialize", (4, 1.0, 0, 0.5, 0.1), "initialize-adapter: population-size 0 is not in"),
        ("initialize", (4, 1.0, 2, 0.0, 0.1), "initialize-adapter: mu-fraction 0.0 is not in (0"),
        ("update", ([1.0], [1, 2], 0.0), "update-adapter: 1 scores but 2 seeds"),
        ("pointer", (), "set-adapter"),
    ],
)
async def test_wrong_use_traps_with_the_values(
    function: str, arguments: tuple[Any, ...], text: str
) -> None:
    """Contract X6, X8, G1."""

    async def main(args: list[str]) -> None:
        queue, pages, (slot, _other) = await _queue_and_slots()
        if function == "set-adapter-seed":
            work = await host.create_pass(queue)
            await _call(function, work, *arguments)
        elif function == "upload":
            await _upload(queue, slot, *arguments)
        elif function == "pointer":
            await _text(queue, pages[0], 77)
        else:
            await _call(f"{function}-adapter", queue, slot, *arguments)

    async with simulated_engine(SimulatedGpu(HashModel())) as engine:
        outcome = await run_native(engine, main)

    assert outcome.event.code is EventCode.EXCEPTION
    if function == "pointer":
        assert outcome.event.text == "execute: pointer 77 is not held by this instance (R1)"
    else:
        assert outcome.event.text.startswith(text)
