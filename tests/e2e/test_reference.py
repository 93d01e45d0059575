"""Through real components, the real model says what transformers says on the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.inferlets.loading import component_of

from .real import TOKENS, Answer, real_engine, run_all

VECTORS = Path(__file__).parents[1] / "vectors" / "greedy_reference_fp32.json"
CLOSE = 1e-3
"""Two engines may break a tie of the best two tokens differently below this margin."""


@pytest.mark.slow
async def test_greedy_decoding_gives_the_reference_tokens() -> None:
    items = json.loads(VECTORS.read_text())["items"]
    async with component_of(TOKENS) as program, real_engine() as engine:
        jobs = [([item["prompt"], "64", "0"], None) for item in items]
        answers = [Answer.of(outcome) for outcome in await run_all(engine, program, jobs)]

    for item, answer in zip(items, answers, strict=True):
        assert answer.prompt == item["prompt_ids"]
        margins = item["margins"]
        sure = next((i for i, margin in enumerate(margins) if margin < CLOSE), len(margins))
        assert sure > 0
        assert answer.output[:sure] == item["output_ids"][:sure], item["prompt"]
