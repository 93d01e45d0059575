"""Programs whose results depend on the order of what they have submitted, and on nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import inferlet
from inferlet import host

from pie.testing.sim.machine import Machine

from .program import Params, SimProgram, a_text, params_of, tokens_of

EMBEDDING = 1


async def tangled(args: list[str]) -> str:
    """Passes that overwrite what others read, leave gaps, and hand vectors on; none is awaited
    before all are submitted, some are never looked at.
    """
    params = params_of(args)
    model = await inferlet.get_model()
    lines = [await host.create_queue(model.handle) for _ in range(params["queues"])]
    size = model.page_size
    slots = await host.allocate(lines[0], EMBEDDING, params["vectors"])
    pages = await host.allocate(lines[0], host.KV_PAGE, -(-params["slots"] // size))
    results = []
    for number, one in enumerate(params["passes"]):
        line = lines[one["queue"]]
        built = await _built(line, one, pages, size, slots, number)
        results.append(await host.execute(built))
        host.drop(built)
        if one["pause"]:
            await inferlet.sleep(one["pause"])
        if one["barrier"]:
            barrier = await host.synchronize(line)
            await host.ready(await host.synchronization_pollable(barrier))
            host.drop(barrier)
    looked_at = params["looked_at"]
    texts = [f"{await tokens_of(results[number])}" for number in looked_at]
    for number, result in enumerate(results):
        if number not in looked_at:
            host.drop(result)
    return " ".join(texts)


async def _built(
    line: Any, one: Params, pages: Sequence[int], size: int, slots: Sequence[int], number: int
) -> Any:
    first, count = one["first"], one["count"]
    end = first + count
    built = await host.create_pass(line)
    tokens, positions = [65 + number % 26] * count, list(range(first, end))
    if one["takes"] is not None:
        await host.input_embeddings(built, [slots[one["takes"]]], positions[:1])
        tokens, positions = tokens[1:], positions[1:]
    if tokens:
        await host.input_tokens(built, tokens, positions)
    await host.kv_cache(built, list(pages[: -(-end // size)]), (end - 1) % size + 1)
    await host.output_tokens(built, [count - 1], one["temperature"])
    if one["stores"] is not None:
        await host.output_embeddings(built, [slots[one["stores"]]], [count - 1])
    return built


def _draw_tangled(random: Random, machine: Machine) -> Params:
    slots = max(4, machine.slots // 5)
    queues, vectors = random.randint(1, 2), random.randint(1, 2)
    passes, high, hasty = [], 0, random.random() < 0.5
    for _ in range(random.randint(2, 8)):
        first = min(random.choice([high, high, high + 3, random.randint(0, high)]), slots - 1)
        count = random.randint(1, min(slots - first, random.choice([1, 2, slots // 2])))
        high = max(high, first + count)
        passes.append(
            {
                "queue": random.randrange(queues),
                "first": first,
                "count": count,
                "temperature": random.choice([0.0, 0.9]),
                "takes": random.choice([None, random.randrange(vectors)]),
                "stores": random.choice([None, random.randrange(vectors)]),
                "pause": 0 if hasty else random.choice([0, 0.02]),
                "barrier": not hasty and random.random() < 0.4,
            }
        )
    every = list(range(len(passes)))
    return {
        "slots": slots,
        "queues": queues,
        "vectors": vectors,
        "passes": passes,
        "looked_at": random.choice([every, every[-1:]]),
    }


async def abreast(args: list[str]) -> str:
    """Sequences of their own, with nothing in common but a queue."""
    params = params_of(args)
    model = await inferlet.get_model()
    line = await host.create_queue(model.handle)
    size, results = model.page_size, []
    for number, length in enumerate(params["lengths"]):
        pages = await host.allocate(line, host.KV_PAGE, -(-length // size))
        built = await host.create_pass(line)
        await host.input_tokens(built, [65 + number] * length, list(range(length)))
        await host.kv_cache(built, pages, (length - 1) % size + 1)
        await host.output_tokens(built, [length - 1], 0.7)
        results.append(await host.execute(built))
        host.drop(built)
    barrier = await host.synchronize(line)
    await host.ready(await host.synchronization_pollable(barrier))
    host.drop(barrier)
    return " ".join([f"{await tokens_of(result)}" for result in results])


def _draw_abreast(random: Random, machine: Machine) -> Params:
    left = machine.slots // 3
    lengths = []
    for _ in range(random.randint(2, 5)):
        length = random.choice([1, 2, left // 4 + 1])
        lengths.append(length)
    return {"lengths": lengths}


async def impatient(args: list[str]) -> str:
    """Gives up on receives before it looks: what came meanwhile is for the next one."""
    texts = []
    for seconds in params_of(args)["patience"]:
        result = await host.receive()
        await inferlet.sleep(seconds)
        host.drop(result)
        texts.append(await inferlet.receive())
    return " ".join(texts)


def _draw_impatient(random: Random, machine: Machine) -> Params:
    return {"patience": [random.choice([0, 0.1, 0.3]) for _ in range(random.randint(1, 3))]}


def _messages(random: Random, params: Params) -> Sequence[str]:
    return [a_text(random, 3) for _ in params["patience"]]


PROGRAMS = [
    SimProgram(name="tangled", main=tangled, draw=_draw_tangled),
    SimProgram(name="abreast", main=abreast, draw=_draw_abreast),
    SimProgram(name="impatient", main=impatient, draw=_draw_impatient, messages=_messages),
]
