"""Generating with steps that the engine chains is generating step by step (contract X10)."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from typing import Any

import inferlet
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from inferlet import host

from pie.config import EngineConfig, Limits
from pie.engine import Engine
from pie.ids import EventCode
from pie.programs import NativeProgram
from pie.testing import (
    Fault,
    LostBatch,
    outcome_of,
    run_native,
    simulated_engine,
)
from pie.testing.determinism import run_simulated

from .players import STEP_SECONDS, Do, Log, Player, Stepwise, actions, begun, gpu_of

pytestmark = pytest.mark.usefixtures("both_devices")


def _played(kind: type[inferlet.Context], program: Sequence[Do]) -> Log:
    async def main(_: list[str]) -> str:
        context = await begun(kind, await inferlet.get_model())
        return json.dumps(await Player([context]).play(program))

    async def run() -> str:
        async with simulated_engine(gpu_of()) as engine:
            outcome = await run_native(engine, main)
            assert outcome.event.code is EventCode.COMPLETED, outcome.event
            (stats,) = (await engine.stats()).values()
            assert stats.pages_free == stats.pages
            return outcome.text

    log: Log = json.loads(run_simulated(run, seed=1))
    return log


@settings(max_examples=60, deadline=None)
@given(program=st.lists(actions, min_size=1, max_size=7))
def test_any_program_gives_what_it_gives_step_by_step(program: list[Do]) -> None:
    """Contract S3: pieces, tokens, pages, and what is drawn afterwards, whoever ran ahead."""
    assert _played(inferlet.Context, program) == _played(Stepwise, program)


@pytest.mark.long
@settings(max_examples=3_000, deadline=None)
@given(program=st.lists(actions, min_size=1, max_size=12))
def test_any_program_gives_what_it_gives_step_by_step_at_length(program: list[Do]) -> None:
    assert _played(inferlet.Context, program) == _played(Stepwise, program)


async def _context(prompt: bytes = b"prompt") -> inferlet.Context:
    context = await inferlet.Context.create(await inferlet.get_model())
    context.fill_tokens(prompt)
    return context


async def _all_given_back(engine: Engine) -> bool:
    (stats,) = (await engine.stats()).values()
    return (stats.pages_free, stats.queued, stats.instances) == (stats.pages, 0, 0)


async def test_a_reader_takes_its_time_while_the_next_step_runs() -> None:
    """Each piece costs its readers most of a step: nobody waits for that."""

    async def main(_: list[str]) -> str:
        text = ""
        async for piece in (await _context(b"1234567")).stream(
            sampler=inferlet.Greedy(), max_tokens=10, ignore_eos=True
        ):
            text += piece
            await inferlet.sleep(0.9 * STEP_SECONDS)
        return text

    gpu = gpu_of()
    async with simulated_engine(gpu) as engine:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(run_native, engine, main)
        assert trio.current_time() - began == pytest.approx(10.9 * STEP_SECONDS)

    assert [step.passes for step in gpu.steps] == [3] * 10


async def test_a_guest_that_returns_leaves_nothing_running() -> None:
    """Contract R10: an unfinished decoding goes with its handle."""

    async def main(_: list[str]) -> str:
        async for piece in (await _context(b"1")).stream(ignore_eos=True):
            return piece
        raise AssertionError("nothing came")

    gpu = gpu_of()
    async with simulated_engine(gpu) as engine:
        outcome = await run_native(engine, main)
        assert outcome.event.code is EventCode.COMPLETED
        assert len(gpu.steps) <= 2
        assert await _all_given_back(engine)


async def test_a_terminated_guest_decodes_no_further() -> None:
    """Contract R10."""

    async def main(_: list[str]) -> str:
        return (await (await _context(b"1")).generate(max_tokens=500, ignore_eos=True)).text

    gpu = gpu_of()
    async with simulated_engine(gpu) as engine:
        launched = await engine.launch(NativeProgram(main))
        await trio.sleep(5.5 * STEP_SECONDS)
        await engine.terminate(launched.instance)
        assert (await outcome_of(launched)).event.code is EventCode.ABORTED
        await trio.sleep(10 * STEP_SECONDS)
        assert len(gpu.steps) == 6
        assert await _all_given_back(engine)


async def test_pages_move_between_two_steps_of_a_decoding_and_come_back() -> None:
    """Contract R5: for an older instance; the tokens are those of a guest that was left alone."""

    async def old(_: list[str]) -> str:
        model = await inferlet.get_model()
        queue = await host.create_queue(model.handle)
        await inferlet.sleep(4.5 * STEP_SECONDS)
        pages = await host.allocate(queue, host.KV_PAGE, 4)
        await inferlet.sleep(20 * STEP_SECONDS)
        await host.deallocate(queue, host.KV_PAGE, pages)
        return ""

    async def young(_: list[str]) -> str:
        context = await _context(bytes(20))
        generation = await context.generate(
            max_tokens=12, sampler=inferlet.Multinomial(2.0), ignore_eos=True
        )
        return str(generation.tokens)

    gpu = gpu_of(pages=5)
    async with simulated_engine(gpu) as engine:
        alone = await run_native(engine, young, seed=3)
        first = await engine.launch(NativeProgram(old))
        crowded = await run_native(engine, young, seed=3)
        await outcome_of(first)
        (stats,) = (await engine.stats()).values()
        assert stats.moved_out > 0
        assert await _all_given_back(engine)

    assert crowded.event.code is EventCode.COMPLETED
    assert crowded.text == alone.text


async def test_a_limit_of_pages_is_met_where_single_steps_meet_it() -> None:
    """The last token of the last page is drawn, the next traps."""

    async def main(args: list[str]) -> str:
        context = await _context(b"123")
        return (await context.generate(max_tokens=int(args[0]), ignore_eos=True)).text

    config = EngineConfig(limits=Limits(max_pages=2))
    async with simulated_engine(gpu_of(), config=config) as engine:
        fits = await run_native(engine, main, ["30"])
        more = await run_native(engine, main, ["31"])
    assert fits.event.code is EventCode.COMPLETED
    assert len(fits.text) == 30
    assert more.event.text.endswith("the limit is 2 (max_pages)")


async def test_a_lost_step_traps_whoever_waits_for_its_end() -> None:
    """Contract F7, G1."""

    async def main(args: list[str]) -> str:
        context = await _context(b"1")
        if args[0] == "generate":
            return (await context.generate(max_tokens=9, ignore_eos=True)).text
        pieces = []
        async for piece in context.stream(max_tokens=9, ignore_eos=True):
            await inferlet.send(piece)
            pieces.append(piece)
        return "".join(pieces)

    faults: dict[int, Fault] = {3: LostBatch("the device lost the batch")}
    for how, sent in (("generate", 0), ("stream", 3)):
        gpu = gpu_of(faults)
        async with simulated_engine(gpu) as engine:
            outcome = await run_native(engine, main, [how])
            assert outcome.event.code is EventCode.EXCEPTION
            assert outcome.event.text.endswith("the device lost the batch")
            assert len(outcome.messages) == sent
            assert await _all_given_back(engine)


async def test_what_ran_ahead_for_a_longer_stream_is_none_of_a_shorter_one() -> None:
    async def main(args: list[str]) -> str:
        kind = inferlet.Context if args else Stepwise
        context = await kind.create(await inferlet.get_model())
        context.fill_tokens(b"1")
        async for _piece in context.stream(sampler=inferlet.Multinomial(2.0), max_tokens=12):
            break
        await inferlet.sleep(20 * STEP_SECONDS)
        again = await context.generate(sampler=inferlet.Multinomial(2.0), max_tokens=3)
        return f"{again.tokens} {await context.step(inferlet.Multinomial(2.0))}"

    async with simulated_engine(gpu_of()) as engine:
        ahead = await run_native(engine, main, ["ahead"], seed=8)
        steps = await run_native(engine, main, seed=8)
    assert ahead.text == steps.text
    assert ahead.text.count(",") == 2


async def test_a_decoding_that_is_cancelled_before_it_ran_leaves_a_shared_page_as_it_was() -> None:
    """Contract R3, R8: it has replaced the page by a copy, which is made all the same."""

    async def main(_: list[str]) -> str:
        queue = await host.create_queue((await inferlet.get_model()).handle)
        pages = await host.allocate(queue, host.KV_PAGE, 1)

        async def built(tokens: bytes, pages: list[int], length: int) -> Any:
            made = await host.create_pass(queue)
            await host.input_tokens(made, list(tokens), list(range(length - len(tokens), length)))
            await host.kv_cache(made, pages, length)
            await host.output_distributions(made, [len(tokens) - 1], 1.0, 5)
            return made

        async def seen(made: Any) -> Any:
            result = await host.execute(made)
            await host.ready(await host.pass_pollable(result))
            return await host.get_distributions(result)

        await seen(await built(b"abcde", pages, 5))
        copied = await host.share_pages(queue, pages)
        begun = await host.create_pass(queue)
        await host.input_tokens(begun, [ord("x")], [5])
        await host.kv_cache(begun, copied, 6)
        await host.output_tokens(begun, [0], 0.0)
        await host.decoding_cancel(await host.decode(begun, 3, [], []))
        return str([await seen(await built(b"f", each, 6)) for each in (copied, pages)])

    async with simulated_engine(gpu_of()) as engine:
        outcome = await run_native(engine, main)
        assert outcome.event.code is EventCode.COMPLETED, outcome.event
        assert await _all_given_back(engine)
    copied, first = ast.literal_eval(outcome.text)
    assert copied == first
