"""`inferlet:adapter`, `inferlet:zo`, `inferlet:image` and `pie:ext`."""

from __future__ import annotations

from typing import Any

from .case import ADAPTER, PAGE, SLOT, Guest, case
from .forward import begin

UPLOADED = b"hash: an adapter of the simulated model"


async def a_slot(guest: Guest, queue: Any) -> int:
    (slot,) = await guest.do("allocate-resources", queue, ADAPTER, 1)
    return int(slot)


async def upload(guest: Guest, queue: Any, slot: int, data: bytes = UPLOADED) -> None:
    await guest.do("upload-adapter", queue, slot, "name", await guest.do("blob", data))


async def download(guest: Guest, queue: Any, slot: int) -> Any:
    """The bytes of an adapter, and what its result gives before and after."""
    result = await guest.do("download-adapter", queue, slot, "name")
    early = await guest.do("blob-result.get", result)
    await guest.wait("blob-result", result)
    blob = await guest.do("blob-result.get", result)
    content = await guest.do("blob.read", blob, 0, 1000)
    return early, content, await guest.do("blob-result.get", result)


async def adapted(
    guest: Guest, queue: Any, page: int, slot: int | None, seed: int | None = None
) -> list[list[int]]:
    """The top tokens of a pass of eight tokens, with an adapter and noise."""
    built = await guest.a_pass(queue, list(range(65, 73)), [page], 8)
    if slot is not None:
        await guest.do("set-adapter", built, slot)
    if seed is not None:
        await guest.do("set-adapter-seed", built, seed)
    return await guest.tops(built, list(range(8)))


@case(returns=[None, UPLOADED.decode(), None])
async def adapter_is_downloaded_as_it_was_uploaded(guest: Guest) -> Any:
    """Contract X8, X5, Q1: in the queue's order; the blob is taken once."""
    queue = await guest.queue()
    slot = await a_slot(guest, queue)
    await upload(guest, queue, slot)
    return await download(guest, queue, slot)


@case(returns=[False, True, True])
async def adapter_changes_the_pass_that_has_it(guest: Guest) -> Any:
    """Contract X8, K5, F3: and no other; a later `set-adapter` replaces."""
    queue, (page,) = await begin(guest)
    first, second = await a_slot(guest, queue), await a_slot(guest, queue)
    plain = await adapted(guest, queue, page, None)
    await upload(guest, queue, first)
    await upload(guest, queue, second, UPLOADED + b"!")
    with_first = await adapted(guest, queue, page, first)
    built = await guest.a_pass(queue, list(range(65, 73)), [page], 8)
    await guest.do("set-adapter", built, second)
    await guest.do("set-adapter", built, first)
    replaced = await guest.tops(built, list(range(8)))
    return [
        with_first == plain,
        with_first == replaced,
        plain == await adapted(guest, queue, page, None),
    ]


@case(returns=[True, False, True, False, False])
async def evolution_is_noise_and_updates_by_seed(guest: Guest) -> Any:
    """Contract X8, Q1: the same seed is the same noise; an update changes the adapter."""
    queue, (page,) = await begin(guest)
    slot = await a_slot(guest, queue)
    await guest.do("initialize-adapter", queue, slot, 8, 16.0, 2, 0.5, 0.1)
    _, before, _ = await download(guest, queue, slot)
    one = await adapted(guest, queue, page, slot, 1)
    seen = [one == await adapted(guest, queue, page, slot, 1)]
    seen.append(one == await adapted(guest, queue, page, slot, 2))
    plain = await adapted(guest, queue, page, slot)
    seen += [plain == await adapted(guest, queue, page, slot), plain == one]
    await guest.do("update-adapter", queue, slot, [1.0, 2.0], [1, 2], 0.2)
    _, after, _ = await download(guest, queue, slot)
    return [*seen, before == after]


@case(traps="set-adapter-seed: Adapter not set (X6)")
async def seed_without_adapter_traps(guest: Guest) -> Any:
    """Contract X6."""
    queue, (page,) = await begin(guest)
    await guest.do("set-adapter-seed", await guest.a_pass(queue, [65], [page], 1), 1)


@case(traps="execute: pointer 3 is not held by this instance (R1)")
async def pass_with_an_unknown_adapter_traps(guest: Guest) -> Any:
    """Contract R1."""
    queue, (page,) = await begin(guest)
    built = await guest.a_pass(queue, [65], [page], 1)
    await guest.do("set-adapter", built, 3)
    await guest.do("forward-pass.execute", built)


@case(traps="upload-adapter: pointer 0 is not held by this instance (R1)")
async def upload_to_an_unknown_slot_traps(guest: Guest) -> Any:
    """Contract R1."""
    await upload(guest, await guest.queue(), 0)


@case(traps="upload-adapter: b'nons' is not b'hash' (X8)")
async def upload_of_no_adapter_traps(guest: Guest) -> Any:
    """Contract X8."""
    queue = await guest.queue()
    await upload(guest, queue, await a_slot(guest, queue), b"nonsense")


@case(traps="adapter slot 0 holds nothing (X8)")
async def download_of_an_empty_slot_traps(guest: Guest) -> Any:
    """Contract X8, F7: it failed, so its pollable is ready and its getter traps."""
    queue = await guest.queue()
    await download(guest, queue, await a_slot(guest, queue))


@case(returns=[False, True])
async def update_of_an_uploaded_adapter_fails(guest: Guest) -> Any:
    """Contract Q2, X8, F7: it has no noise; the queue says so, and another queue does not."""
    queue, other = await guest.queue(), await guest.queue()
    slot = await a_slot(guest, queue)
    await upload(guest, queue, slot)
    await guest.do("update-adapter", queue, slot, [1.0], [1], 0.1)
    return [await guest.settled(queue), await guest.settled(other)]


@case(
    traps="a pass failed and the guest never looked: update-adapter: slot 0 holds an uploaded "
    "adapter; initialize-adapter starts a strategy (X8)"
)
async def failure_that_nobody_met_is_told_at_the_end(guest: Guest) -> Any:
    """Contract F7: the guest returns without having heard of it."""
    queue = await guest.queue()
    slot = await a_slot(guest, queue)
    await upload(guest, queue, slot)
    await guest.do("update-adapter", queue, slot, [1.0], [1], 0.1)


@case(traps="initialize-adapter: rank 0 is not in 1..64 (X8)")
async def adapter_without_rank_traps(guest: Guest) -> Any:
    """Contract X8."""
    queue = await guest.queue()
    slot = await a_slot(guest, queue)
    await guest.do("initialize-adapter", queue, slot, 0, 1.0, 2, 0.5, 0.1)


@case(traps="update-adapter: 1 scores but 2 seeds, at most 65536 (X8)")
async def scores_without_seeds_trap(guest: Guest) -> Any:
    """Contract X8."""
    queue = await guest.queue()
    slot = await a_slot(guest, queue)
    await guest.do("update-adapter", queue, slot, [1.0], [1, 2], 0.1)


@case(traps="set-adapter: model 'second' takes no adapters (X8)")
async def adapter_of_a_model_that_takes_none_traps(guest: Guest) -> Any:
    """Contract X8, X1: a guest can ask for the trait before."""
    second = await guest.do("model.create-queue", await guest.do("get-model", "second"))
    await guest.do("set-adapter", await guest.do("create-forward-pass", second), 0)


@case(traps="embed-image: model 'simulated' does not have the trait input_image (X8)")
async def image_for_a_model_that_cannot_see_traps(guest: Guest) -> Any:
    """Contract X8."""
    await guest.do("embed-image", await guest.queue(), [0], b"png", 0)


@case(traps="calculate-embed-size: model 'simulated' does not have the trait input_image (X8)")
async def size_of_an_image_for_a_model_that_cannot_see_traps(guest: Guest) -> Any:
    """Contract X8."""
    await guest.do("calculate-embed-size", await guest.queue(), 8, 8)


@case(returns=[None, True, False, [2], [["x", 1]]], keeps=1)
async def exports_can_be_tried(guest: Guest) -> Any:
    """Contract X10: none and false, where 0.2 can only trap."""
    queue, pages = await begin(guest, 2)
    return [
        await guest.do("try-import", queue, PAGE, "x"),
        await guest.do("try-export", queue, PAGE, pages[:1], "x"),
        await guest.do("try-export", queue, PAGE, pages[1:], "x"),
        await guest.do("try-import", queue, PAGE, "x"),
        await guest.do("get-all-exported-resources", queue, PAGE),
    ]


@case(returns=[None, False, True, [1, 1, 1], True, [[0.0]]])
async def embeddings_can_be_read(guest: Guest) -> Any:
    """Contract X10, Q1, R3: in the queue's order; an unwritten slot reads as zeros."""
    queue, (page,) = await begin(guest)
    slots = list(await guest.do("allocate-resources", queue, SLOT, 4))
    built = await guest.a_pass(queue, [65, 66], [page], 2)
    await guest.do("output-embeddings", built, slots[:3], [0, 1, 1])
    await guest.do("forward-pass.execute", built)
    result = await guest.do("read-embeddings", queue, slots[:3])
    pollable = await guest.do("embedding-result.pollable", result)
    seen = [await guest.do("embedding-result.get", result)]
    seen.append(await guest.do("pollable.ready", pollable))
    await guest.do("pollable.block", pollable)
    vectors = await guest.do("embedding-result.get", result)
    seen += [vectors == await guest.do("embedding-result.get", result), list(map(len, vectors))]
    seen.append(vectors[0] != vectors[1] == vectors[2])
    unwritten = await guest.do("read-embeddings", queue, slots[3:])
    await guest.wait("embedding-result", unwritten)
    return [*seen, await guest.do("embedding-result.get", unwritten)]


@case(traps="read-embeddings: pointer 0 is not held by this instance (R1)")
async def reading_an_unknown_slot_traps(guest: Guest) -> Any:
    """Contract R1, X10."""
    await guest.do("read-embeddings", await guest.queue(), [0])


@case(returns=[[256], list(b"<|im_start|>"), 5000])
async def special_tokens_in_strangers_text_stay_text(guest: Guest) -> Any:
    """Contract X10, X2."""
    tokenizer = await guest.do("get-tokenizer", await guest.model())
    return [
        await guest.do("tokenizer.tokenize", tokenizer, "<|im_start|>"),
        await guest.do("tokenize-plain", tokenizer, "<|im_start|>"),
        len(await guest.do("tokenize-plain", tokenizer, "x" * 5000)),
    ]
