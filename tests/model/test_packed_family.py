"""The packed runner does what makes the models of the family differ, and leaves what it cannot."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pie.batch import ints
from pie.model import load
from pie.model.runner import TorchRunner
from tests.model.published import answers, published, save
from tests.model.support import Pass, make_batch
from tests.model.test_against_transformers import VARIANTS

pytest.importorskip("numba")

from pie.kernels.cpu.target import detect
from pie.model.packed.runner import PackedRunner

pytestmark = [
    pytest.mark.skipif(detect() is None, reason="no packed kernels for this machine"),
    pytest.mark.usefixtures("one_thread"),
]

TOKENS = [(37 * i + 5) % 250 for i in range(110)]
NEAR = {
    "llama-yarn": 0.1,
    "mistral": 0.1,
    "qwen2-windows": 0.04,
    "qwen3": 0.04,
    "gemma2": 0.002,
    "gemma3": 0.002,
    "smollm3": 0.1,
}
"""Most KL per token. Windows of one slot more make 0.45, 0.05, 0.004 and 0.007 in those that have
any."""


def packable(name: str) -> Any:
    """A model of a variant, of sizes that have a packed form."""
    kind, facts = VARIANTS[name]
    sizes = {"hidden_size": 128} | ({"head_dim": 32} if "head_dim" in facts else {})
    return published(kind, seed=1, **{**facts, **sizes})


@pytest.mark.parametrize("name", NEAR)
def test_a_packed_model_is_near_that_of_transformers(name: str, tmp_path: Path) -> None:
    """In pieces, in company and beyond the windows."""
    model = packable(name)
    runner = load(save(model, tmp_path), pages=16, threads=1)
    assert isinstance(runner, PackedRunner)
    try:
        first = make_batch([Pass(tokens=TOKENS[:50], pages=range(7))])
        found = [np.array(runner.logits(first, ints(range(50))))]
        other = Pass(tokens=TOKENS[:9], pages=[8])
        rest = Pass(tokens=TOKENS[50:], pages=range(7), length=len(TOKENS))
        rows = ints(range(9, 9 + len(TOKENS) - 50))
        found.append(np.array(runner.logits(make_batch([other, rest]), rows)))
    finally:
        runner.close()
    ours = torch.from_numpy(np.concatenate(found)).log_softmax(-1)
    theirs = answers(model, TOKENS).log_softmax(-1)
    divergence = (theirs.exp() * (theirs - ours)).sum(-1).mean().item()
    assert divergence < NEAR[name]


def test_what_cannot_be_packed_runs_in_float32_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, why in (("olmo2", "all heads of a row"), ("llama-tied-biased", "an output bias")):
        with caplog.at_level(logging.WARNING):
            runner = load(save(packable(name), tmp_path / name), pages=1)
        assert isinstance(runner, TorchRunner)
        assert why in caplog.text
