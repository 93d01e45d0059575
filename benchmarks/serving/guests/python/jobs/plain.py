"""Completions as a server of prompts gives them, and one that looks at every distribution."""

from __future__ import annotations

import json
from itertools import accumulate
from typing import Any

import inferlet

_KEPT = 4
"""Contexts that a session remembers."""


async def completion(spec: dict[str, Any]) -> list[int]:
    """Greedily `count` tokens after `tokens`; with `stream` each piece of text is a message."""
    context = await inferlet.Context.create(await inferlet.get_model())
    context.fill_tokens(spec["tokens"])
    asked = {"max_tokens": spec["count"], "sampler": inferlet.Greedy(), "ignore_eos": True}
    if not spec.get("stream"):
        return (await context.generate(**asked)).tokens
    generation = context.stream(**asked)
    async for piece in generation:
        await inferlet.send(piece)
    return generation.tokens


async def session(spec: dict[str, Any]) -> None:
    """Answer each message, a prompt's tokens, with the next token, until it is ended.

    What a prompt has in common with an earlier one is not computed again: its pages are alive.
    """
    model = await inferlet.get_model()
    kept: list[inferlet.Context] = []
    while True:
        tokens = json.loads(await inferlet.receive())
        context = await _continued(kept, tokens) or await inferlet.Context.create(model)
        context.fill_tokens(tokens[len(context.tokens) :])
        await inferlet.send(str(await context.step(inferlet.Greedy())))
        kept.append(context)
        if len(kept) > _KEPT:
            await kept.pop(0).release()


async def _continued(kept: list[inferlet.Context], tokens: list[int]) -> inferlet.Context | None:
    """A fork of the context that has most of `tokens` in common, cut to that."""
    common, best = max(
        ((_common(each.tokens, tokens), each) for each in kept),
        key=lambda found: found[0],
        default=(0, None),
    )
    if best is None or not common:
        return None
    context = await best.fork()
    context.rewind(common)
    return context


def _common(one: list[int], other: list[int]) -> int:
    shorter = min(len(one), len(other))
    if one[:shorter] == other[:shorter]:
        return shorter
    pairs = enumerate(zip(one, other, strict=False))
    return next(index for index, (mine, theirs) in pairs if mine != theirs)


async def sampling(spec: dict[str, Any]) -> list[int]:
    """Draw `count` tokens in Python, each from the 32 most probable."""
    context = await inferlet.Context.create(await inferlet.get_model())
    context.fill_tokens(spec["tokens"])
    number, drawn = spec.get("seed", 1), []
    for _ in range(spec["count"]):
        ids, probabilities = await context.distribution()
        number = (number * 1_103_515_245 + 12_345) % (1 << 31)
        edges = list(accumulate(probabilities))
        mark = number / (1 << 31) * edges[-1]
        token = ids[sum(edge <= mark for edge in edges)]
        context.fill_tokens([token])
        drawn.append(token)
    return drawn
