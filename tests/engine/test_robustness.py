"""Guests that do what they should not: each is ended for it, and nobody else notices."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import inferlet
import pytest
import trio
from inferlet import host
from inferlet.native import HOST

from pie.batch import Batch, ints
from pie.config import EngineConfig, Limits
from pie.devices import ThreadedModel
from pie.engine import Engine
from pie.ids import EventCode
from pie.programs import NativeProgram
from pie.testing import HashModel, Outcome, SimulatedGpu, outcome_of, run_native, simulated_engine

U32_MAX = 2**32 - 1

Body = Callable[["Tools"], Awaitable[Any]]


class Tools:
    """A model, its queue and two pages of the guest."""

    def __init__(self, model: Any, queue: Any, pages: list[int]) -> None:
        self.model, self.queue, self.pages = model, queue, pages

    async def a_pass(self, tokens: int = 1, pages: list[int] | None = None) -> Any:
        """A pass of `tokens` inputs that fill the first slots of `pages`."""
        built = await host.create_pass(self.queue)
        await host.input_tokens(built, [65] * tokens, list(range(tokens)))
        await host.kv_cache(built, self.pages[:1] if pages is None else pages, tokens)
        return built


async def ending_of(body: Body, *, limits: Limits | None = None, kept: int = 0) -> Outcome:
    """How a guest ends that does `body`, beside one that must complete.

    Nothing is left but the pages that it exported, `kept` of the 64.
    """

    async def main(args: list[str]) -> None:
        model = await host.get_model("simulated")
        queue = await host.create_queue(model)
        await body(Tools(model, queue, await host.allocate(queue, host.KV_PAGE, 2)))

    async def bystander(args: list[str]) -> str:
        context = await inferlet.Context.create(await inferlet.get_model())
        await context.fill("A")
        return (await context.generate(max_tokens=20, ignore_eos=True)).text

    config = EngineConfig(limits=limits or Limits())
    async with simulated_engine(SimulatedGpu(HashModel(pages=64)), config=config) as engine:
        beside = await engine.launch(NativeProgram(bystander))
        with trio.fail_after(1000):
            outcome = await run_native(engine, main)
        assert len((await outcome_of(beside)).text) == 20
        await nothing_is_left(engine, kept)
    return outcome


async def nothing_is_left(engine: Engine, kept: int = 0) -> None:
    stats = (await engine.stats())["simulated"]
    assert stats.pages_free == stats.pages - kept
    assert stats.instances == stats.queued == stats.waiting == 0
    assert await engine.instances() == []
    assert all(service.activity.moving == 0 for service in engine.services)


async def trap_of(body: Body, **options: Any) -> str:
    event = (await ending_of(body, **options)).event
    assert event.code is EventCode.EXCEPTION, event
    return event.text


# ------------------------------------------------------------------ wrong arguments


async def test_values_outside_their_wit_type_are_the_guests_mistake() -> None:
    """A component could not pass them; natively they must not reach the model."""

    async def negative(tools: Tools) -> None:
        await host.input_tokens(await host.create_pass(tools.queue), [-5], [0])

    async def too_large(tools: Tools) -> None:
        await host.input_tokens(await host.create_pass(tools.queue), [5], [U32_MAX + 1])

    async def no_list(tools: Tools) -> None:
        await host.kv_cache(await host.create_pass(tools.queue), None, 1)

    async def no_text(tools: Tools) -> None:
        await host.send(5)

    async def half_a_character(tools: Tools) -> None:
        await host.store_get("\ud800")

    async def huge(tools: Tools) -> None:
        await host.output_tokens(await tools.a_pass(), [0], 1e300)

    async def no_priority(tools: Tools) -> None:
        await host.set_priority(tools.queue, "urgent")

    async def nested(tools: Tools) -> None:
        await host.attention_mask(await tools.a_pass(), [[1], ["x"]])

    assert "list<u32>" in await trap_of(negative)
    assert "list<u32>" in await trap_of(too_large)
    assert "list<pointer>" in await trap_of(no_list)
    assert "message is not a string" in await trap_of(no_text)
    assert "key is not a string" in await trap_of(half_a_character)
    assert "temperature is not a f32" in await trap_of(huge)
    assert "priority" in await trap_of(no_priority)
    assert "list<list<u32>>" in await trap_of(nested)


async def test_more_pages_than_the_model_has_trap() -> None:
    """A page may be listed twice for reading, but not until the model's memory is full."""

    async def repeat(tools: Tools) -> None:
        read, written = tools.pages
        built = await tools.a_pass(1, [*[read] * 64, written])
        await host.execute(built)

    assert await trap_of(repeat) == "kv-cache: 65 pages are more than the 64 of the model (K1)"


async def test_more_outputs_than_one_pass_may_have_trap() -> None:
    """An index may repeat, but each slot costs the model a pass over the vocabulary."""

    async def sample(tools: Tools) -> None:
        built = await tools.a_pass()
        for _ in range(9):
            await host.output_tokens(built, [0] * 1000, 0.5)

    async def rank(tools: Tools) -> None:
        await host.output_distributions(await tools.a_pass(), [0] * 8193, 0.5, 1)

    assert "9000 output slots in the pass, the limit is 8192" in await trap_of(sample)
    assert "8193 output slots in the pass, the limit is 8192" in await trap_of(rank)


async def test_results_nobody_takes_are_limited() -> None:
    async def hoard(tools: Tools) -> None:
        kept = []
        for _ in range(5):
            built = await tools.a_pass()
            await host.output_distributions(built, [0] * 10, 1.0, 25)
            kept.append(await host.execute(built))

    async def take(tools: Tools) -> None:
        for index in range(10):
            built = await tools.a_pass()
            await host.output_distributions(built, [0] * 10, 1.0, 25)
            result = await host.execute(built)
            if index % 2:
                await host.ready(await host.pass_pollable(result))
                await host.get_distributions(result)
            else:
                host.drop(result)

    limits = Limits(max_result_entries=1000)
    assert "1250 tokens and distribution entries" in await trap_of(hoard, limits=limits)
    assert (await ending_of(take, limits=limits)).event.code is EventCode.COMPLETED


async def test_the_blobs_of_a_guest_are_limited_together() -> None:
    async def hoard(tools: Tools) -> None:
        kept = [await host.new_blob(bytes(100)) for _ in range(11)]
        await host.blob_size(kept[0])

    async def pass_on(tools: Tools) -> None:
        for index in range(20):
            blob = await host.new_blob(bytes(100))
            if index % 2:
                await host.send_blob(blob)
            else:
                host.drop(blob)

    limits = Limits(max_blob_bytes=1000)
    assert "blob: 1100 bytes in all, the limit is 1000" in await trap_of(hoard, limits=limits)
    assert (await ending_of(pass_on, limits=limits)).event.code is EventCode.COMPLETED


async def test_names_and_topics_have_a_limit() -> None:
    name = "x" * 1025

    async def export(tools: Tools) -> None:
        await host.export_resources(tools.queue, host.KV_PAGE, tools.pages, name)

    async def topic(tools: Tools) -> None:
        await host.subscribe(name)

    async def sender(tools: Tools) -> None:
        await host.broadcast(name, "text")

    for body in (export, topic, sender):
        assert "1025 bytes, the limit is 1024" in await trap_of(body)


async def test_virtual_ids_are_limited_like_handles() -> None:
    """A page may be exported and imported many times over."""

    async def long_export(tools: Tools) -> None:
        await host.export_resources(tools.queue, host.KV_PAGE, tools.pages * 51, "x")

    async def many_imports(tools: Tools) -> None:
        await host.export_resources(tools.queue, host.KV_PAGE, tools.pages * 40, "x")
        await host.import_resources(tools.queue, host.KV_PAGE, "x")

    limits = Limits(max_handles=100)
    assert "102 pointers, the limit is 100" in await trap_of(long_export, limits=limits)
    limits = Limits(max_handles=81)
    assert "82 pointers, the limit is 81" in await trap_of(many_imports, limits=limits, kept=2)


async def test_a_poll_of_nothing_traps() -> None:
    """Contract X9: it would wait for ever."""

    async def poll(tools: Tools) -> None:
        await HOST.get().poll([])

    assert "the list of pollables is empty" in await trap_of(poll)


# --------------------------------------------------------------------- wrong order


async def test_pages_freed_while_a_pass_waits_for_room_are_unknown_to_it() -> None:
    """Contract R1: the pages are looked up when the pass is submitted."""

    async def body(tools: Tools) -> None:
        async def submit() -> None:
            await host.execute(await tools.a_pass())
            await host.execute(await tools.a_pass())

        async def free() -> None:
            await host.deallocate(tools.queue, host.KV_PAGE, tools.pages)

        await inferlet.gather(submit(), free())

    text = await trap_of(body, limits=Limits(max_passes_in_flight=1))
    assert text == "execute: pointer 0 is not held by this instance (R1)"


async def test_what_was_on_its_way_when_a_guest_unsubscribed_is_not_read() -> None:
    """Contract X5."""

    async def body(tools: Tools) -> None:
        subscription = await host.subscribe("topic")
        await host.broadcast("topic", "text")
        await host.unsubscribe(subscription)
        await host.sleep(1)
        assert await host.subscription_get(subscription) is None

    assert (await ending_of(body)).event.code is EventCode.COMPLETED


async def test_a_guest_cannot_ask_faster_than_the_supervisor_answers() -> None:
    """Who launches and terminates would wait behind its questions."""

    async def body(tools: Tools) -> None:
        result = await host.debug_query("get_instance_count")
        assert await host.debug_get(result) == "2"

    assert (await ending_of(body)).event.code is EventCode.COMPLETED


# -------------------------------------------------------------------- odd endings


@pytest.mark.parametrize("grouped", [False, True])
async def test_an_exit_ends_the_guest_alone(grouped: bool) -> None:
    """As `wasi:cli/exit` does in a component; argparse exits, for one."""

    async def leave(code: int) -> None:
        if not grouped:
            sys.exit(code)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave_now, code)

    async def leave_now(code: int) -> None:
        sys.exit(code)

    assert "exit code 3" in await trap_of(lambda _: leave(3))
    assert (await ending_of(lambda _: leave(0))).event.code is EventCode.COMPLETED


async def test_a_guest_that_fails_while_it_is_ended_ends_alone() -> None:
    async def stubborn() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("no")

    async def main(args: list[str]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stubborn)
            nursery.start_soon(stubborn)
            await trio.sleep_forever()

    async with simulated_engine() as engine:
        launched = await engine.launch(NativeProgram(main))
        await trio.sleep(1)
        await engine.terminate(launched.instance, "enough")
        event = (await outcome_of(launched)).event
        assert (event.code, event.text) == (EventCode.ABORTED, "enough")
        await nothing_is_left(engine)


# -------------------------------------------------------------------------- threads


@pytest.mark.slow
async def test_a_step_does_not_wait_for_the_threads_of_guests() -> None:
    """Long texts are tokenised in threads, of which there is a limited number."""
    threads = trio.to_thread.current_default_thread_limiter()
    threads.total_tokens = 1
    empty = Batch(
        tokens=ints(),
        positions=ints(),
        row_starts=ints([0]),
        pages=ints(),
        page_starts=ints([0]),
        lengths=ints(),
    )
    async with threads:
        with trio.fail_after(20):
            await ThreadedModel(HashModel()).run(empty)
