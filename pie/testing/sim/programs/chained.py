"""Programs that leave decode steps to the engine, one decoding after the other or behind it."""

from __future__ import annotations

from random import Random
from typing import Any

import inferlet
from inferlet import host

from pie.testing.sim.machine import Machine

from .program import Params, SimProgram, a_text, params_of, raw_pass, tokens_of, up_to

TEMPERATURE = 0.8


async def chained(args: list[str]) -> str:
    """Decodings of one sequence: run to their end, cancelled or dropped after some tokens, with
    pages that are growth, and passes behind them; each goes on from the tokens that were taken.
    """
    params = params_of(args)
    model = await inferlet.get_model()
    queue = await host.create_queue(model.handle)
    size = model.page_size
    pages = await host.allocate(queue, host.KV_PAGE, -(-params["slots"] // size))
    tokens, written = [ord(letter) for letter in params["prompt"]], 0
    for part in params["parts"]:
        decoding = await _decode(queue, tokens[written:], written, pages, size, part)
        taken = await _take(decoding, part)
        if taken:
            written = len(tokens) + len(taken) - 1
            tokens += taken
        if part["pause"]:
            await inferlet.sleep(part["pause"])
    behind = await raw_pass(queue, tokens[written:], written, pages, size)
    await host.output_tokens(behind, [len(tokens) - written - 1], TEMPERATURE)
    result = await host.execute(behind)
    host.drop(behind)
    return bytes([*tokens, *await tokens_of(result)]).decode()


async def _decode(
    queue: Any, inputs: list[int], first: int, pages: list[int], size: int, part: Params
) -> Any:
    built = await raw_pass(queue, inputs, first, pages, size)
    await host.output_tokens(built, [len(inputs) - 1], TEMPERATURE)
    growth = pages[-(-(first + len(inputs)) // size) :]
    decoding = await host.decode(built, part["steps"], part["stops"], growth)
    host.drop(built)
    return decoding


async def _take(decoding: Any, part: Params) -> list[int]:
    taken: list[int] = []
    over = False
    if part["take"] is None:
        await host.ready(await host.decoding_ended(decoding))
        found, over = await host.decoding_get(decoding, 1000)
        taken += found
    while not over and len(taken) < (part["take"] or 0):
        await host.ready(await host.decoding_pollable(decoding))
        found, over = await host.decoding_get(decoding, 1)
        taken += found
    if part["pause"]:
        await inferlet.sleep(part["pause"])  # whatever runs ahead meanwhile does not count
    if part["cancels"]:
        await host.decoding_cancel(decoding)
    host.drop(decoding)
    return taken


def _draw_chained(random: Random, machine: Machine) -> Params:
    prompt = a_text(random, up_to(random, max(1, machine.slots // 8)))
    steps = [up_to(random, max(2, machine.slots // 16)) for _ in range(random.randint(1, 4))]
    letters = range(ord("a"), ord("z") + 1)
    return {
        "prompt": prompt,
        "slots": len(prompt) + sum(steps) + 1,
        "parts": [
            {
                "steps": count,
                "stops": sorted(random.sample(letters, random.choice([0, 0, 3, 9]))),
                "take": random.choice([None, None, random.randint(0, count)]),
                "cancels": random.random() < 0.5,
                "pause": random.choice([0, 0, 0.02]),
            }
            for count in steps
        ],
    }


async def abandoned(args: list[str]) -> str:
    """Streams that are left early, and a decoding that nobody ever looks at."""
    params = params_of(args)
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.fill(params["prompt"])
    text = ""
    for pieces in params["pieces"]:
        stream = context.stream(sampler=inferlet.Multinomial(TEMPERATURE), ignore_eos=True)
        async for piece in stream:
            text += piece
            pieces -= 1
            if pieces <= 0:
                break
    child = await context.fork()
    size = context.model.page_size
    await child.flush()
    await _decode(
        child.queue, [97], 0, await host.allocate(child.queue, host.KV_PAGE, 2), size, params
    )
    return text


def _draw_abandoned(random: Random, machine: Machine) -> Params:
    pieces = [random.randint(1, 9) for _ in range(random.randint(1, 3))]
    return {
        "prompt": a_text(random, up_to(random, max(1, machine.slots // 8))),
        "pieces": pieces,
        "steps": machine.page_size + 1,
        "stops": [],
    }


PROGRAMS = [
    SimProgram(name="chained", main=chained, draw=_draw_chained),
    SimProgram(name="abandoned", main=abandoned, draw=_draw_abandoned),
]
