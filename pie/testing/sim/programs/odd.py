"""Programs that do what they should not, or leave without looking back."""

from __future__ import annotations

from random import Random

import inferlet
from inferlet import host

from pie.ids import EventCode
from pie.testing.sim.machine import Machine

from .program import (
    EMBEDDING,
    Params,
    SimProgram,
    new_context,
    next_token,
    params_of,
    raw_pass,
    tokens_of,
    up_to,
)


async def careless(args: list[str]) -> str:
    """Submits passes, never looks at the results, and returns; they still run (R10)."""
    params = params_of(args)
    model = await inferlet.get_model()
    queue = await host.create_queue(model.handle)
    pages = await host.allocate(queue, host.KV_PAGE, -(-params["passes"] // model.page_size))
    for at in range(params["passes"]):
        built = await raw_pass(queue, [97 + at], at, pages, model.page_size)
        await host.output_tokens(built, [0], 0.0)
        await host.execute(built)
        if params["drops"]:
            host.drop(built)
    if params["frees"]:
        await host.deallocate(queue, host.KV_PAGE, pages)
    return "gone"


def _draw_careless(random: Random, machine: Machine) -> Params:
    return {
        "passes": min(machine.slots // 2, random.choice([1, 3, 12])),
        "drops": random.random() < 0.5,
        "frees": random.random() < 0.5,
    }


_WRONGS = ["pointer", "index", "twice", "free", "length"]


async def trapping(args: list[str]) -> None:
    """Breaks a rule with passes on their way."""
    params = params_of(args)
    model = await inferlet.get_model()
    queue = await host.create_queue(model.handle)
    size = model.page_size
    pages = await host.allocate(queue, host.KV_PAGE, 2)
    for at in range(params["passes"]):
        built = await raw_pass(queue, [97], at, pages, size)
        await host.execute(built)
    wrong = await raw_pass(queue, [97], 0, pages, size)
    match params["wrong"]:
        case "pointer":
            await host.kv_cache(wrong, [77], 1)
        case "index":
            await host.output_tokens(wrong, [3], 0.0)
        case "twice":
            await host.execute(wrong)
        case "free":
            await host.deallocate(queue, host.KV_PAGE, [pages[0], pages[0]])
        case "length":
            await host.kv_cache(wrong, pages, size + 1)
    await host.execute(wrong)


def _draw_trapping(random: Random, machine: Machine) -> Params:
    return {"passes": random.randint(0, 2), "wrong": random.choice(_WRONGS)}


async def failing(args: list[str]) -> None:
    """Fails while one of its strands waits for the model, and another for its client."""

    async def fail() -> None:
        await inferlet.sleep(params_of(args)["seconds"])
        raise inferlet.Failure("this is how it ends")

    async def work() -> None:
        context = await new_context("failing")
        await context.generate(max_tokens=4, ignore_eos=True)

    await inferlet.gather(work(), inferlet.receive(), fail())


def _draw_failing(random: Random, machine: Machine) -> Params:
    return {"seconds": random.choice([0, 0.01, 0.05])}


async def waiting(_: list[str]) -> None:
    """Holds pages and waits for its client, who ends it."""
    context = await new_context("waiting for ever")
    await context.step(inferlet.Greedy())
    await inferlet.receive()


async def trusting(args: list[str]) -> str:
    """Reads pages and slots that it never wrote: they are zeros, whoever had them before (R3)."""
    params = params_of(args)
    model = await inferlet.get_model()
    queue = await host.create_queue(model.handle)
    size, count = model.page_size, params["pages"]
    text = b""
    for _ in range(params["times"]):
        pages = await host.allocate(queue, host.KV_PAGE, count)
        text += bytes([await next_token(queue, [97], count * size - 1, pages, size)])
        await host.deallocate(queue, host.KV_PAGE, pages)
    slots = await host.allocate(queue, EMBEDDING, 1)
    fed = await host.create_pass(queue)
    await host.input_embeddings(fed, slots, [0])
    await host.kv_cache(fed, await host.allocate(queue, host.KV_PAGE, 1), 1)
    await host.output_tokens(fed, [0], 0.0)
    tokens = await tokens_of(await host.execute(fed))
    await host.deallocate(queue, EMBEDDING, slots)
    return (text + bytes(tokens)).decode()


def _draw_trusting(random: Random, machine: Machine) -> Params:
    return {"pages": up_to(random, machine.pages // 4), "times": random.randint(1, 3)}


PROGRAMS = [
    SimProgram(name="trusting", main=trusting, draw=_draw_trusting),
    SimProgram(name="careless", main=careless, draw=_draw_careless),
    SimProgram(name="trapping", main=trapping, draw=_draw_trapping, ends=EventCode.EXCEPTION),
    SimProgram(name="failing", main=failing, draw=_draw_failing, ends=EventCode.EXCEPTION),
    SimProgram(
        name="waiting",
        main=waiting,
        draw=lambda _, __: {},
        independent=False,
        endless=True,
        ends=EventCode.ABORTED,
    ),
]
