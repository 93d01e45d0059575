"""Each sampler makes exactly one request, in the contract's terms."""

from __future__ import annotations

from typing import Any

import pytest
from inferlet import Context, Greedy, MinP, Multinomial, Sampler, TopK, TopKTopP, TopP, get_model

from tests.sdk.scripted import ScriptedHost, hosted


@pytest.mark.parametrize(
    ("sampler", "request_made"),
    [
        (Greedy(), ("tokens", [2], 0.0)),
        (Multinomial(0.5), ("tokens", [2], 0.5)),
        (TopP(0.9, 0.5), ("top-p", [2], 0.5, 0.9)),
        (TopK(7, 0.5), ("top-k", [2], 0.5, 7)),
        (MinP(0.1, 0.5), ("min-p", [2], 0.5, 0.1)),
        (TopKTopP(7, 0.9, 0.5), ("top-k-top-p", [2], 0.5, 7, 0.9)),
    ],
)
async def test_a_sampler_asks_for_one_slot(sampler: Sampler, request_made: tuple[Any, ...]) -> None:
    with hosted(ScriptedHost(script=[7])) as host:
        context = await Context.create(await get_model())
        await context.fill("abc")
        assert await context.step(sampler) == 7
    assert host.passes[0].outputs == [request_made]


async def test_a_distribution_comes_without_tokens() -> None:
    with hosted(ScriptedHost(distributions=[([5, 6], [0.75, 0.25])])) as host:
        context = await Context.create(await get_model())
        await context.fill("abc")
        assert await context.distribution(temperature=0.5, top_k=2) == ([5, 6], [0.75, 0.25])
    assert host.passes[0].outputs == [("distributions", [2], 0.5, 2)]
    assert "[method]forward-pass-result.get-tokens" not in host.calls
