"""Two users of one engine never meet (contract R3, R6, X3): names, topics, messages, pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import inferlet
import pytest
import trio
from inferlet import host

from pie.config import EngineConfig, Scheduling
from pie.engine import Engine
from pie.ids import EventCode
from pie.programs import NativeProgram
from pie.testing import HashModel, SimulatedGpu, outcome_of, run_native, simulated_engine

SIZE = 16
PAGES = 4
KINDS = {"page": 0, "embedding": 1, "adapter": 2}

Main = Callable[[list[str]], Awaitable[str | None]]


async def _queue() -> object:
    return await host.create_queue((await inferlet.get_model()).handle)


async def _text_of(engine: Engine, main: Main, user: str, *arguments: str) -> str:
    return (await run_native(engine, main, arguments, user=user)).text


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_exports_of_another_user_are_not_there(kind: int) -> None:
    async def keep(args: list[str]) -> None:
        queue = await _queue()
        pointers = await host.allocate(queue, kind, int(args[0]))
        await host.export_resources(queue, kind, pointers, "mine")

    async def names(_: list[str]) -> str:
        return str(await host.all_exported(await _queue(), kind))

    async def take(_: list[str]) -> None:
        await host.import_resources(await _queue(), kind, "mine")

    async def release(_: list[str]) -> None:
        await host.release_exported(await _queue(), kind, "mine")

    async with simulated_engine() as engine:
        await _text_of(engine, keep, "alice", "2")
        assert await _text_of(engine, names, "bob") == "[]"
        taken = (await run_native(engine, take, user="bob")).event
        assert taken.code is EventCode.EXCEPTION
        assert "nothing is exported as 'mine'" in taken.text
        await _text_of(engine, release, "bob")
        await _text_of(engine, keep, "bob", "1")

        assert await _text_of(engine, names, "alice") == "[('mine', 2)]"
        assert await _text_of(engine, names, "bob") == "[('mine', 1)]"


async def test_keys_of_another_user_are_not_there() -> None:
    async def keep(args: list[str]) -> None:
        await inferlet.store.set("key", args[0])

    async def look(_: list[str]) -> str:
        store = inferlet.store
        return f"{await store.get('key')} {await store.exists('key')} {await store.keys()}"

    async def delete(_: list[str]) -> None:
        await inferlet.store.delete("key")

    async with simulated_engine() as engine:
        await _text_of(engine, keep, "alice", "of alice")
        assert await _text_of(engine, look, "bob") == "None False []"
        await _text_of(engine, keep, "bob", "of bob")
        assert await _text_of(engine, look, "alice") == "of alice True ['key']"
        await _text_of(engine, delete, "bob")
        assert await _text_of(engine, look, "alice") == "of alice True ['key']"


async def test_broadcasts_of_another_user_are_not_heard() -> None:
    """The third one is of the listener's user, and the first that arrives."""

    async def listen(_: list[str]) -> str:
        return str(await (await inferlet.subscribe("news")).next())

    async def tell(args: list[str]) -> None:
        await inferlet.broadcast("news", args[0])

    async with simulated_engine() as engine:
        listener = await engine.launch(NativeProgram(listen), user="alice")
        await trio.sleep(1)
        for user in ("bob", "internal-looking", "alice"):
            await _text_of(engine, tell, user, f"from {user}")

        assert (await outcome_of(listener)).text == "from alice"


async def test_a_message_reaches_the_instance_it_is_for() -> None:
    async def receive(_: list[str]) -> str:
        return await inferlet.receive()

    async with simulated_engine() as engine:
        alice = await engine.launch(NativeProgram(receive), user="alice")
        bob = await engine.launch(NativeProgram(receive), user="bob")
        mine = [d.instance for d in await engine.instances("bob")]
        await engine.send(alice.instance, "for alice")
        await engine.send(bob.instance, "for bob")

        assert mine == [bob.instance]
        assert (await outcome_of(alice)).text == "for alice"
        assert (await outcome_of(bob)).text == "for bob"


async def _peek(_: list[str]) -> str:
    """What all slots of the pool give that the guest has not written, as far as a pass can see."""
    queue = await _queue()
    pages = await host.allocate(queue, 0, PAGES)
    work = await host.create_pass(queue)
    await host.input_tokens(work, [65], [0])
    await host.kv_cache(work, pages, SIZE)
    await host.output_tokens(work, [0], 0.0)
    await host.output_distributions(work, [0], 1.0, 8)
    result = await host.execute(work)
    await host.ready(await host.pass_pollable(result))
    return f"{await host.get_tokens(result)} {await host.get_distributions(result)}"


async def _secret(args: list[str]) -> str:
    """Fills the pool, then goes on when it is told to."""
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.fill("the secret of alice " * 3)
    first = await context.step(inferlet.Greedy())
    if args:
        await inferlet.receive()
    return f"{first} {await context.step(inferlet.Greedy())}"


def _small_pool() -> SimulatedGpu:
    return SimulatedGpu(HashModel(pages=PAGES))


async def test_what_was_in_the_pages_of_another_user_is_gone() -> None:
    """Contract R3: they read as zeros, as the pages of a new engine do."""
    async with simulated_engine(_small_pool()) as engine:
        fresh = await _text_of(engine, _peek, "bob")
    async with simulated_engine(_small_pool()) as engine:
        await _text_of(engine, _secret, "alice")
        used = await _text_of(engine, _peek, "bob")

    assert used == fresh


async def test_what_is_in_pages_that_moved_out_for_another_user_is_neither_seen_nor_lost() -> None:
    async with simulated_engine(_small_pool()) as engine:
        fresh = await _text_of(engine, _peek, "bob")
        wanted = await _text_of(engine, _secret, "alice")
    config = EngineConfig(scheduling=Scheduling(host_pages=PAGES))
    async with simulated_engine(_small_pool(), config=config) as engine:
        alice = await engine.launch(NativeProgram(_secret), ["wait"], user="alice")
        await trio.sleep(1)
        seen = await _text_of(engine, _peek, "bob")
        moved = (await engine.stats())["simulated"].moved_out
        await engine.send(alice.instance, "go on")
        kept = (await outcome_of(alice)).text

    assert moved == PAGES
    assert seen == fresh
    assert kept == wanted


async def test_a_vector_in_the_embedding_slot_of_another_user_is_gone() -> None:
    async def keep(_: list[str]) -> None:
        queue = await _queue()
        (page,), slots = await host.allocate(queue, 0, 1), await host.allocate(queue, 1, 2)
        work = await host.create_pass(queue)
        await host.input_tokens(work, [65, 66], [0, 1])
        await host.kv_cache(work, [page], 2)
        await host.output_embeddings(work, slots, [0, 1])
        await host.execute(work)

    async def use(_: list[str]) -> str:
        queue = await _queue()
        (page,), slots = await host.allocate(queue, 0, 1), await host.allocate(queue, 1, 2)
        work = await host.create_pass(queue)
        await host.input_embeddings(work, slots, [0, 1])
        await host.kv_cache(work, [page], 2)
        await host.output_tokens(work, [0, 1], 0.0)
        result = await host.execute(work)
        await host.ready(await host.pass_pollable(result))
        return str(await host.get_tokens(result))

    async with simulated_engine(SimulatedGpu(HashModel(embedding_slots=2))) as engine:
        fresh = await _text_of(engine, use, "bob")
        await _text_of(engine, keep, "alice")
        assert await _text_of(engine, use, "bob") == fresh
