"""Speculative decoding by prompt look-up (Saxena 2023): what followed these tokens before.

A pass computes the last token and the guesses after it, and says what the model would have drawn
after each. Guesses count as far as they agree, so the result is that of plain greedy decoding.
"""

from __future__ import annotations

from typing import Any

import inferlet
from inferlet import host


async def run(spec: dict[str, Any]) -> str:
    """The text of `count` tokens after `prompt`."""
    model = await inferlet.get_model()
    queue = await host.create_queue(model.handle)
    tokens = await model.tokenize(spec["prompt"])
    start, end, written = len(tokens), len(tokens) + spec["count"], 0
    room = end + spec["guesses"]
    pages = await host.allocate(queue, host.KV_PAGE, -(-room // model.page_size))
    while len(tokens) < end:
        guesses = guess(tokens, spec["guesses"])
        inputs = tokens[written:] + guesses
        drawn = await _drawn(queue, pages, model.page_size, inputs, written, len(guesses) + 1)
        agreed = 0
        while agreed < len(guesses) and guesses[agreed] == drawn[agreed]:
            agreed += 1
        written = len(tokens) + agreed
        tokens += drawn[: agreed + 1]
    return await model.detokenize(tokens[start:end])


def guess(tokens: list[int], count: int) -> list[int]:
    """What followed the last occurrence of the last three tokens, or two; nothing if none."""
    for length in (3, 2):
        tail = tokens[-length:]
        for at in range(len(tokens) - length - 1, -1, -1):
            if tokens[at : at + length] == tail:
                return tokens[at + length : at + length + count]
    return []


async def _drawn(
    queue: Any, pages: list[int], size: int, inputs: list[int], start: int, outputs: int
) -> list[int]:
    """The most probable token after each of the last `outputs` inputs, which begin at `start`."""
    length = start + len(inputs)
    work = await host.create_pass(queue)
    await host.input_tokens(work, inputs, list(range(start, length)))
    await host.kv_cache(work, pages[: -(-length // size)], (length - 1) % size + 1)
    await host.output_tokens(work, list(range(len(inputs) - outputs, len(inputs))), 0.0)
    result = await host.execute(work)
    host.drop(work)
    await host.ready(await host.pass_pollable(result))
    drawn = list(await host.get_tokens(result))
    host.drop(result)
    return drawn
