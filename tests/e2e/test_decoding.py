"""On the real model, steps that the engine chains are single steps, to the last token."""

from __future__ import annotations

import json
from typing import Any

import inferlet
import pytest

from pie.ids import EventCode
from pie.programs import NativeProgram

from .real import real_engine, run_all

PROMPT = "A short story about the sea, the wind and an old lighthouse keeper:"


class Stepwise(inferlet.Context):
    """Its steps are its own, so the engine cannot chain them."""

    async def step(self, sampler: inferlet.Sampler) -> int:
        return await super().step(sampler)


async def _story(kind: type[inferlet.Context], sampler: inferlet.Sampler) -> list[Any]:
    """A stream that is left, a hidden word, a text that ends it, and what is drawn next."""
    context = await kind.create(await inferlet.get_model())
    await context.fill(PROMPT)
    seen: list[Any] = []
    async for piece in context.stream(sampler=sampler, max_tokens=20, ignore_eos=True):
        seen.append(piece)
        if len(seen) == 5:
            break
    context.mask_tokens(2, 4)
    stop = inferlet.stop_text(" the", "and")
    ended = await context.generate(sampler=sampler, max_tokens=12, stop=stop, ignore_eos=True)
    whole = await context.generate(sampler=sampler, max_tokens=18, ignore_eos=True)
    ids, probabilities = await context.distribution(top_k=3)
    return [*seen, ended.tokens, ended.text, whole.tokens, ids, probabilities]


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampler", [inferlet.Greedy(), inferlet.TopP(0.95, 0.9)], ids=["greedy", "seeded"]
)
async def test_chained_steps_give_what_single_steps_give(sampler: inferlet.Sampler) -> None:
    """Contract X10, S3, S4: side by side, to the last bit of a probability."""

    async def main(args: list[str]) -> str:
        kind = inferlet.Context if args[0] == "chained" else Stepwise
        return json.dumps(await _story(kind, sampler))

    async with real_engine(step_tokens=16) as engine:
        both = await run_all(engine, NativeProgram(main), [(["chained"], 4), (["steps"], 4)])

    assert both[0].event.code is EventCode.COMPLETED
    assert both[0].text == both[1].text
