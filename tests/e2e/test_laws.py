"""Laws of the contract on the real model in float32, to the last bit of every probability."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import inferlet
import pytest
from inferlet import host

from pie.config import EngineConfig, Scheduling
from pie.devices import ThreadedModel
from pie.engine import open_engine
from pie.ids import EventCode
from pie.messages import Event, Launched
from pie.model import load
from pie.programs import NativeProgram
from pie.testing import outcome_of, run_native
from tests.model_file import smollm2_path

from .real import real_engine

SIZE = 16
STEP = 32
PROMPT = " ".join(f"{word} of the sea" for word in ("waves", "wind", "sand", "salt") * 7)


async def _filled(text: str) -> inferlet.Context:
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.fill(text)
    return context


async def _decoded(context: inferlet.Context, count: int) -> str:
    """The most probable tokens, one by one, with their probabilities."""
    found = []
    for _ in range(count):
        ids, probabilities = await context.distribution(top_k=4)
        found.append((ids, probabilities))
        context.fill_tokens(ids[:1])
    return str(found)


async def _first_message(launched: Launched) -> None:
    item = await anext(aiter(launched.outbox))
    assert isinstance(item, Event)
    assert item.code is EventCode.MESSAGE


async def _plainly(_: list[str]) -> str:
    return await _decoded(await _filled(PROMPT), 3)


@pytest.mark.slow
async def test_a_fork_sees_the_prompt_that_is_still_on_its_way() -> None:
    """Contract Q1, Q3: a prompt of three steps, unawaited, and a child that is more urgent."""

    async def forked(_: list[str]) -> str:
        parent = await _filled(PROMPT)
        assert len(parent.tokens) >= 3 * STEP
        await host.set_priority(parent.queue, host.priority("low"))
        await parent.flush()
        child = await parent.fork()
        await host.set_priority(child.queue, host.priority("high"))
        return await _decoded(child, 3)

    async with real_engine(step_tokens=STEP) as engine:
        assert (await run_native(engine, forked)).text == (await run_native(engine, _plainly)).text


@pytest.mark.slow
async def test_a_context_goes_on_from_host_memory_as_if_it_had_stayed() -> None:
    """Contract R5, S4: its pages go out for another instance while it waits for its client."""

    async def pausing(args: list[str]) -> str:
        context = await _filled(PROMPT)
        first = await _decoded(context, 1)
        if args:
            await inferlet.send("waiting")
            await inferlet.receive()
        return first + await _decoded(context, 2)

    async def filling(_: list[str]) -> str:
        return await _decoded(await _filled(PROMPT[::-1][:120]), 1)

    runner = load(smollm2_path(), dtype="float32", pages=10)
    config = EngineConfig(scheduling=Scheduling(host_pages=10))
    async with open_engine([ThreadedModel(runner)], config) as engine:
        wanted = (await run_native(engine, pausing)).text
        old = await engine.launch(NativeProgram(pausing), ["pause"])
        await _first_message(old)
        assert (await run_native(engine, filling)).event.code is EventCode.COMPLETED
        (stats,) = (await engine.stats()).values()
        await engine.send(old.instance, "go on")
        found = (await outcome_of(old)).text

    assert stats.moved_out > 0
    assert found == wanted


async def _ranked(
    queue: Any,
    pages: list[int],
    tokens: list[int],
    length: int,
    *,
    positions: Sequence[int] = (),
    masks: list[list[int]] | None = None,
) -> list[Any]:
    """The most probable tokens after each of `tokens`, at the end of `length` slots."""
    start = length - len(tokens)
    work = await host.create_pass(queue)
    await host.input_tokens(work, tokens, list(positions or range(start, length)))
    await host.kv_cache(work, pages, (length - 1) % SIZE + 1)
    if masks is not None:
        await host.attention_mask(work, masks)
    await host.output_distributions(work, list(range(len(tokens))), 1.0, 4)
    result = await host.execute(work)
    await host.ready(await host.pass_pollable(result))
    return list(await host.get_distributions(result))


async def _queue_and_pages(count: int) -> tuple[Any, list[int]]:
    queue = await host.create_queue((await inferlet.get_model()).handle)
    return queue, await host.allocate(queue, host.KV_PAGE, count)


TOKENS = [(977 * i) % 49000 + 20 for i in range(SIZE + 5)]
BRANCHES = ([300, 301], [400, 401])


@pytest.mark.slow
async def test_who_writes_on_into_a_shared_page_gets_what_it_would_have_alone() -> None:
    """Contract R8: the exporter and an importer go on in the partial page, each its own way."""

    async def alone(args: list[str]) -> str:
        queue, pages = await _queue_and_pages(2)
        await _ranked(queue, pages, TOKENS, len(TOKENS))
        branch = BRANCHES[int(args[0])]
        return str(await _ranked(queue, pages, branch, len(TOKENS) + 2))

    async def exporter(_: list[str]) -> str:
        queue, pages = await _queue_and_pages(2)
        await _ranked(queue, pages, TOKENS, len(TOKENS))
        await host.export_resources(queue, host.KV_PAGE, pages, "prompt")
        await inferlet.send("exported")
        return str(await _ranked(queue, pages, BRANCHES[0], len(TOKENS) + 2))

    async def importer(_: list[str]) -> str:
        queue, _pages = await _queue_and_pages(0)
        pages = await host.import_resources(queue, host.KV_PAGE, "prompt")
        return str(await _ranked(queue, pages, BRANCHES[1], len(TOKENS) + 2))

    async with real_engine() as engine:
        wanted = [(await run_native(engine, alone, [n])).text for n in "01"]
        first = await engine.launch(NativeProgram(exporter))
        await _first_message(first)
        second = await run_native(engine, importer)
        found = [(await outcome_of(first)).text, second.text]

    assert found == wanted


@pytest.mark.slow
async def test_the_accepted_path_of_a_draft_tree_is_plain_decoding() -> None:
    """Contract K3, M1: two drafts of two tokens in one pass, each blind to the other, to 1e-4."""

    async def tree(_: list[str]) -> str:
        queue, pages = await _queue_and_pages(2)
        await _ranked(queue, pages, TOKENS, n := len(TOKENS))
        masks = [[n + 1], [n + 2], [n, 2, 1], [n, 2, 2]]
        drafts = [*BRANCHES[0], *BRANCHES[1]]
        at = [n, n + 1, n, n + 1]
        return json.dumps(await _ranked(queue, pages, drafts, n + 4, positions=at, masks=masks))

    async def plain(args: list[str]) -> str:
        queue, pages = await _queue_and_pages(2)
        tokens = TOKENS + BRANCHES[int(args[0])]
        return json.dumps((await _ranked(queue, pages, tokens, len(tokens)))[-2:])

    async with real_engine() as engine:
        found = json.loads((await run_native(engine, tree)).text)
        paths = [json.loads((await run_native(engine, plain, [n])).text) for n in "01"]

    for (ids, probabilities), (wanted_ids, wanted) in zip(
        found, [*paths[0], *paths[1]], strict=True
    ):
        assert ids == wanted_ids
        assert probabilities == pytest.approx(wanted, abs=1e-4)
