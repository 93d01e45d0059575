"""`inferlet:core/common`: blobs, models, queues."""

from __future__ import annotations

import json
from typing import Any

from .case import PAGE, Guest, case


@case(returns=[5, "ell", "lo", "", "", "hello", 0])
async def blob_is_read_anywhere(guest: Guest) -> Any:
    """Contract X6: past the end there is nothing, and no trap."""
    blob = await guest.do("blob", b"hello")
    empty = await guest.do("blob", b"")
    return [
        await guest.do("blob.size", blob),
        await guest.do("blob.read", blob, 1, 3),
        await guest.do("blob.read", blob, 3, 100),
        await guest.do("blob.read", blob, 5, 1),
        await guest.do("blob.read", blob, 2**64 - 1, 2**64 - 1),
        await guest.do("blob.read", blob, 0, 2**64 - 1),
        await guest.do("blob.size", empty),
    ]


@case(returns=["simulated", "a hash of the visible slots", ["<|im_end|>"], True, 0, 16, 16])
async def model_describes_itself(guest: Guest) -> Any:
    """Contract X1."""
    model = await guest.model()
    template = await guest.do("model.get-prompt-template", model)
    return [
        await guest.do("model.get-name", model),
        await guest.do("model.get-description", model),
        await guest.do("model.get-stop-tokens", model),
        "add_generation_prompt" in template,
        await guest.do("model.get-service-id", model),
        await guest.do("model.get-kv-page-size", model),
        await guest.do("model.get-kv-page-size", await guest.model()),
    ]


@case(returns=[["adapter", "allocate", "forward", "input_text", "output_text", "tokenize"], False])
async def model_has_the_traits_of_what_it_can_do(guest: Guest) -> Any:
    """Contract X1."""
    traits = await guest.do("model.get-traits", await guest.model())
    return [sorted(traits), "input_image" in traits]


@case(returns=["second", 1, 1, 0])
async def queue_belongs_to_its_model(guest: Guest) -> Any:
    """Contract Q4: the service id is the model's index in the configuration."""
    second = await guest.do("get-model", "second")
    queue = await guest.do("model.create-queue", second)
    return [
        await guest.do("model.get-name", second),
        await guest.do("model.get-service-id", second),
        await guest.do("queue.get-service-id", queue),
        await guest.do("queue.get-service-id", await guest.queue()),
    ]


@case(returns=["pong", "pong", True, "unknown query 'x'; known are: ping, stats"])
async def queue_answers_queries(guest: Guest) -> Any:
    """Contract Q4, X5: the answer may be taken again."""
    queue = await guest.queue()
    ping = await guest.do("queue.debug-query", queue, "ping")
    await guest.wait("debug-query-result", ping)
    answers = [await guest.do("debug-query-result.get", ping) for _ in range(2)]
    for query in ("stats", "x"):
        result = await guest.do("queue.debug-query", queue, query)
        await guest.wait("debug-query-result", result)
        answers.append(await guest.do("debug-query-result.get", result))
    answers[2] = json.loads(answers[2])["pages"] > 0
    return answers


@case(returns=[None, False, True, True, True])
async def synchronize_waits_for_what_was_submitted(guest: Guest) -> Any:
    """Contract Q2, X5: none while the pass runs, true afterwards, and the same again."""
    queue = await guest.queue()
    (page,) = await guest.do("allocate-resources", queue, PAGE, 1)
    built = await guest.a_pass(queue, [65], [page], 1)
    await guest.do("output-tokens", built, [0], 0.0)
    await guest.do("forward-pass.execute", built)
    result = await guest.do("queue.synchronize", queue)
    pollable = await guest.do("synchronization-result.pollable", result)
    seen = [await guest.do("synchronization-result.get", result)]
    seen.append(await guest.do("pollable.ready", pollable))
    await guest.do("pollable.block", pollable)
    seen.append(await guest.do("pollable.ready", pollable))
    seen += [await guest.do("synchronization-result.get", result) for _ in range(2)]
    return seen


async def _first_of(guest: Guest, *priorities: str) -> list[int]:
    """Which of some passes of four steps is done first; submitted in this order."""
    pollables = []
    for priority in priorities:
        queue = await guest.queue()
        pages = await guest.do("allocate-resources", queue, PAGE, 4)
        await guest.do("queue.set-priority", queue, priority)
        built = await guest.a_pass(queue, [65] * 64, pages, 64)
        await guest.do("output-tokens", built, [63], 0.0)
        result = await guest.do("forward-pass.execute", built)
        pollables.append(await guest.do("forward-pass-result.pollable", result))
    return list(await guest.do("poll", pollables))


@case(step_tokens=16, returns=[2])
async def priority_high_goes_first(guest: Guest) -> Any:
    """Contract Q3: although it came last."""
    return await _first_of(guest, "normal", "low", "high")


@case(step_tokens=16, returns=[1])
async def priority_low_goes_last(guest: Guest) -> Any:
    """Contract Q3."""
    return await _first_of(guest, "low", "normal")


@case(returns=True)
async def queues_are_cheap(guest: Guest) -> Any:
    """Contract R9: a hundred queues in a dozen tokens, none of them dropped."""
    return len([await guest.queue() for _ in range(200)]) == 200
