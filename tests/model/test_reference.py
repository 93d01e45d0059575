"""The real model gives the tokens that two other engines give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pie.model.runner import TorchRunner
from tests.model.support import Pass, greedy, make_batch, starts

STEPS = 64
MARGIN = 1e-3
"""Below this distance of the two best logits, float32 engines may honestly disagree."""

_PATH = Path(__file__).parents[1] / "vectors" / "greedy_reference_fp32.json"
ITEMS: list[dict[str, Any]] = json.loads(_PATH.read_text())["items"]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["prompt"][:24])
def test_prompts_have_the_reference_ids(smollm2: TorchRunner, item: dict[str, Any]) -> None:
    tokenizer = smollm2.info.tokenizer
    assert tokenizer.encode(item["templated"]) == item["prompt_ids"]
    assert tokenizer.decode(item["prompt_ids"]) == item["templated"]


def test_greedy_tokens_are_those_of_the_reference(smollm2: TorchRunner) -> None:
    """All prompts in one batch: transformers ran them one by one."""
    pages = [range(i * 16, i * 16 + 16) for i in range(len(ITEMS))]
    produced: list[list[int]] = [[] for _ in ITEMS]
    for step in range(STEPS):
        passes = [
            Pass(
                tokens=item["prompt_ids"] if step == 0 else out[-1:],
                pages=table,
                length=len(item["prompt_ids"]) + step,
            )
            for item, out, table in zip(ITEMS, produced, pages, strict=True)
        ]
        last = np.array(starts([len(p.tokens) for p in passes])[1:]) - 1
        result = smollm2.run(make_batch(passes, **greedy(last.tolist())))
        assert result.sampled_finite.all()
        for out, token in zip(produced, result.tokens.tolist(), strict=True):
            out.append(token)
    for item, out in zip(ITEMS, produced, strict=True):
        unsure = [i for i, margin in enumerate(item["margins"]) if margin < MARGIN]
        compared = min(unsure, default=STEPS)
        assert out[:compared] == item["output_ids"][:compared], item["prompt"]


def test_the_file_says_how_to_chat(smollm2: TorchRunner) -> None:
    info = smollm2.info
    assert "<|im_start|>assistant" in info.prompt_template
    assert info.stop_tokens[0] == "<|im_end|>"
    assert (info.vocabulary, info.context_length, info.page_size) == (49152, 8192, 16)
