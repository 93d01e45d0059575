"""Programs that compute on their own: prompts, decoding, forks, queues, masks, vectors."""

from __future__ import annotations

from random import Random
from typing import Any

import inferlet
from inferlet import host
from inferlet._native import bind

from pie.testing.sim.machine import Machine

from .program import (
    ADAPTER,
    EMBEDDING,
    Params,
    SimProgram,
    a_text,
    new_context,
    next_token,
    params_of,
    raw_pass,
    tokens_of,
    up_to,
)

_SAMPLERS: list[inferlet.Sampler] = [
    inferlet.Greedy(),
    inferlet.Multinomial(0.7),
    inferlet.TopP(0.9),
    inferlet.TopK(5),
]


async def decode(args: list[str]) -> str:
    """A prompt, then one token after the other, with this guest in between or without."""
    params = params_of(args)
    context = await new_context(params["prompt"])
    sampler = _SAMPLERS[params["sampler"]]
    if params["stepwise"]:
        for _ in range(params["tokens"]):
            context.fill_tokens([await context.step(sampler)])
    else:
        await context.generate(max_tokens=params["tokens"], sampler=sampler, ignore_eos=True)
    text = (await context.text())[len(params["prompt"]) :]
    if params["release"]:
        await context.release()
    return text


def _draw_decode(random: Random, machine: Machine) -> Params:
    return {
        "prompt": a_text(random, up_to(random, machine.slots // 5)),
        "tokens": up_to(random, min(16, machine.slots // 5)),
        "sampler": random.randrange(len(_SAMPLERS)),
        "stepwise": random.random() < 0.5,
        "release": random.random() < 0.5,
    }


async def prefill(args: list[str]) -> str:
    """A prompt of half the pool, which takes many steps, and a few tokens."""
    params = params_of(args)
    context = await new_context(params["prompt"])
    await context.flush()
    text = await context.generate(max_tokens=params["tokens"], ignore_eos=True)
    return text.text


def _draw_prefill(random: Random, machine: Machine) -> Params:
    return {"prompt": a_text(random, up_to(random, machine.slots // 2 - 4)), "tokens": 3}


async def fork(args: list[str]) -> str:
    """Children share the prompt's pages, go on by themselves, and some are given up early."""
    params = params_of(args)
    parent = await new_context(params["prompt"])
    await parent.flush()
    children = [await parent.fork() for _ in range(params["children"])]

    async def go_on(number: int, child: inferlet.Context) -> str:
        await child.fill(f"{number}")
        if number in params["released"]:
            await child.release()
            return "-"
        text = await child.generate(
            max_tokens=params["tokens"] + number, sampler=inferlet.Greedy(), ignore_eos=True
        )
        return text.text

    texts = await inferlet.gather(*(go_on(n, child) for n, child in enumerate(children)))
    last = await parent.generate(max_tokens=2, sampler=inferlet.Greedy(), ignore_eos=True)
    return " ".join([*texts, last.text])


def _draw_fork(random: Random, machine: Machine) -> Params:
    children = random.randint(1, 3)
    return {
        "prompt": a_text(random, up_to(random, machine.slots // 6)),
        "children": children,
        "released": [n for n in range(children) if random.random() < 0.2],
        "tokens": up_to(random, max(1, machine.slots // 16 - 4)),
    }


async def queues(args: list[str]) -> str:
    """Sequences interleaved over several queues, some barriers, some results dropped unread."""
    params = params_of(args)
    model = await inferlet.get_model()
    size = model.page_size
    lines = [await host.create_queue(model.handle) for _ in params["priorities"]]
    for line, priority in zip(lines, params["priorities"], strict=True):
        await host.set_priority(line, host.priority(priority))
    total = sum(each["length"] for each in params["passes"])
    sequences = [
        await host.allocate(lines[0], host.KV_PAGE, -(-total // size))
        for _ in range(params["sequences"])
    ]
    ends = [0] * len(sequences)
    results: list[Any] = []
    for each in params["passes"]:
        line, at = lines[each["queue"]], ends[each["sequence"]]
        tokens = [65 + (at + i) % 26 for i in range(each["length"])]
        built = await raw_pass(line, tokens, at, sequences[each["sequence"]], size)
        ends[each["sequence"]] += len(tokens)
        await host.output_tokens(built, [len(tokens) - 1], 0.0)
        results.append(await host.execute(built))
        host.drop(built)
        if each["barrier"]:
            await _barrier(line, waits=each["barrier"] == "waits")
    found = b""
    for number in params["looked_at"]:
        result, results[number] = results[number], None
        found += bytes(await tokens_of(result))
    for handle in [*filter(None, results), *lines]:
        host.drop(handle)
    return found.decode()


async def _barrier(queue: Any, *, waits: bool) -> None:
    barrier = await host.synchronize(queue)
    if waits:
        await host.ready(await host.synchronization_pollable(barrier))
        if not await host.synchronization_get(barrier):
            raise inferlet.Failure("a pass of the queue failed")
    host.drop(barrier)


def _draw_queues(random: Random, machine: Machine) -> Params:
    count, passes = random.randint(1, 3), random.randint(1, 6)
    sequences = random.randint(1, 2)
    looked_at = [n for n in range(passes) if random.random() < 0.6]
    random.shuffle(looked_at)
    return {
        "priorities": [random.choice(["low", "normal", "high"]) for _ in range(count)],
        "sequences": sequences,
        "passes": [
            {
                "queue": random.randrange(count),
                "sequence": random.randrange(sequences),
                "length": up_to(random, max(1, machine.slots // 40)),
                "barrier": random.choice(["", "", "waits", "drops"]),
            }
            for _ in range(passes)
        ],
        "looked_at": looked_at,
    }


async def masked(args: list[str]) -> str:
    """Passes in which rows see only some of what is before them, and distributions."""
    params = params_of(args)
    model = await inferlet.get_model()
    queue = await host.create_queue(model.handle)
    size, random = model.page_size, Random(params["seed"])
    pages = await host.allocate(queue, host.KV_PAGE, -(-sum(params["lengths"]) // size))
    texts: list[str] = []
    at = 0
    for length in params["lengths"]:
        built = await raw_pass(queue, [97 + i % 26 for i in range(length)], at, pages, size)
        rows = []
        for visible in range(at + 1, at + length + 1):
            cut = random.randint(0, visible)
            rows.append([cut, visible - cut] if random.random() < 0.5 else [0, cut, visible - cut])
        at += length
        await host.attention_mask(built, rows)
        await host.output_distributions(built, [0, length - 1], 1.0, 3)
        await host.output_tokens(built, [length - 1], 0.8)
        result = await host.execute(built)
        host.drop(built)
        await host.ready(await host.pass_pollable(result))
        ranked = [ids for ids, _ in await host.get_distributions(result)]
        texts.append(f"{ranked} {await host.get_tokens(result)}")
        host.drop(result)
    return " ".join(texts)


def _draw_masked(random: Random, machine: Machine) -> Params:
    lengths = [up_to(random, max(1, machine.slots // 16)) for _ in range(random.randint(1, 3))]
    return {"lengths": lengths, "seed": random.randrange(3)}


_read_embeddings = bind("pie:ext/ext", "read-embeddings")
_embedding_pollable = bind("pie:ext/ext", "[method]embedding-result.pollable")
_embedding_get = bind("pie:ext/ext", "[method]embedding-result.get")


async def vectors(args: list[str]) -> str:
    """Hidden states are kept in slots, fed to later passes, and read."""
    params = params_of(args)
    model = await inferlet.get_model()
    queue = await host.create_queue(model.handle)
    size = model.page_size
    pages: list[int] = []
    slots = []
    if not params["slots_last"]:
        slots = await host.allocate(queue, EMBEDDING, params["slots"])
    pages = await host.allocate(queue, host.KV_PAGE, -(-2 * params["steps"] // size))
    if params["slots_last"]:
        slots = await host.allocate(queue, EMBEDDING, params["slots"])
    tokens = []
    for step in range(params["steps"]):
        slot = slots[step % len(slots)]
        built = await raw_pass(queue, [97 + step], 2 * step, pages, size)
        await host.output_embeddings(built, [slot], [0])
        await host.execute(built)
        at = 2 * step + 1
        fed = await host.create_pass(queue)
        await host.input_embeddings(fed, [slot], [at])
        await host.kv_cache(fed, pages[: at // size + 1], at % size + 1)
        await host.output_tokens(fed, [0], 0.0)
        result = await host.execute(fed)
        host.drop(built)
        host.drop(fed)
        tokens += await tokens_of(result)
    read = await _read_embeddings(queue, slots[:1])
    await host.ready(await _embedding_pollable(read))
    vector = await _embedding_get(read)
    host.drop(read)
    await host.deallocate(queue, EMBEDDING, slots)
    return f"{bytes(tokens).decode()} {vector}"


def _draw_vectors(random: Random, machine: Machine) -> Params:
    return {
        "slots": random.randint(1, min(2, machine.embedding_slots)),
        "steps": up_to(random, min(6, machine.slots // 6)),
        "slots_last": random.random() < 0.5,
    }


_upload = bind("inferlet:adapter/common", "upload-adapter")
_download = bind("inferlet:adapter/common", "download-adapter")
_set_adapter = bind("inferlet:adapter/common", "set-adapter")
_set_seed = bind("inferlet:zo/evolve", "set-adapter-seed")
_initialize = bind("inferlet:zo/evolve", "initialize-adapter")
_update = bind("inferlet:zo/evolve", "update-adapter")


async def _download_bytes(queue: Any, slot: int) -> bytes:
    result = await _download(queue, slot, "adapter")
    await host.ready(await host.blob_pollable(result))
    blob = await host.blob_get(result)
    data: bytes = await host.blob_read(blob, 0, await host.blob_size(blob))
    host.drop(blob)
    host.drop(result)
    return data


async def adapted(args: list[str]) -> str:
    """An adapter changes what passes before and after it give, in the order of the queue."""
    params = params_of(args)
    model = await inferlet.get_model()
    queue = await host.create_queue(model.handle)
    (slot,) = await host.allocate(queue, ADAPTER, 1)
    pages = await host.allocate(queue, host.KV_PAGE, -(-params["steps"] // model.page_size))
    results = []
    if params["evolves"]:
        await _initialize(queue, slot, 4, 1.0, 2, 0.5, 0.1)
    else:
        await _upload(queue, slot, "adapter", await host.new_blob(b"hash" + b"x" * params["size"]))
    for step in range(params["steps"]):
        built = await raw_pass(queue, [97 + step], step, pages, model.page_size)
        await _set_adapter(built, slot)
        if params["evolves"]:
            await _set_seed(built, step)
        await host.output_tokens(built, [0], 0.0)
        results.append(await host.execute(built))
        host.drop(built)
        if params["evolves"]:
            await _update(queue, slot, [float(step), 1.0], [step, step + 1], 1.0)
    tokens = [token for result in results for token in await tokens_of(result)]
    data = await _download_bytes(queue, slot)
    return f"{bytes(tokens).decode()} {data.hex()}"


def _draw_adapted(random: Random, machine: Machine) -> Params:
    return {
        "evolves": random.random() < 0.5,
        "size": random.randrange(3),
        "steps": up_to(random, min(6, machine.slots // 4)),
    }


async def hoard(args: list[str]) -> str:
    """Takes pages piece by piece, up to all there are, writes them, and lets some go."""
    params = params_of(args)
    model = await inferlet.get_model()
    queue = await host.create_queue(model.handle)
    pages: list[int] = []
    for piece in params["pieces"]:
        pages += await host.allocate(queue, host.KV_PAGE, piece)
    size = model.page_size
    first = await next_token(queue, [97] * (len(pages) * size), 0, pages, size)
    await inferlet.sleep(params["seconds"])
    kept = len(pages) - params["freed"]
    await host.deallocate(queue, host.KV_PAGE, pages[kept:])
    last = await next_token(queue, [98], kept * size - 1, pages[:kept], size)
    return bytes([first, last]).decode()


def _draw_hoard(random: Random, machine: Machine) -> Params:
    left = up_to(random, machine.pages)
    pieces = []
    while left:
        pieces.append(random.randint(1, left))
        left -= pieces[-1]
    return {
        "pieces": pieces,
        "seconds": random.choice([0, 0.1]),
        "freed": random.randrange(sum(pieces)),
    }


PROGRAMS = [
    SimProgram(name="decode", main=decode, draw=_draw_decode),
    SimProgram(name="prefill", main=prefill, draw=_draw_prefill),
    SimProgram(name="fork", main=fork, draw=_draw_fork),
    SimProgram(name="queues", main=queues, draw=_draw_queues),
    SimProgram(name="masked", main=masked, draw=_draw_masked),
    SimProgram(name="vectors", main=vectors, draw=_draw_vectors),
    SimProgram(name="adapted", main=adapted, draw=_draw_adapted),
    SimProgram(name="hoard", main=hoard, draw=_draw_hoard),
]
