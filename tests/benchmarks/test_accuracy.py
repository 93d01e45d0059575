"""`benchmarks.accuracy` writes the formats it says it does and computes what it prints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.accuracy.__main__ import FORMATS, TEXT
from benchmarks.accuracy.compare import compare, windows
from benchmarks.accuracy.files import requantise
from benchmarks.accuracy.quantisers import format_for, quantise
from pie.batch import Batch, Ints
from pie.model.loaders.gguf_file import read_gguf
from pie.model.loading import read_checkpoint
from tests.model.tiny import Tiny, write_gguf
from tests.model_file import smollm2_path

STEPS = {"Q4_0": 8, "Q4_1": 7, "Q5_0": 16, "Q5_1": 15, "Q8_0": 127, "Q4_K": 6, "Q5_K": 12,
         "Q6_K": 25, "F16": 1000, "BF16": 250, "F32": 1e9}  # fmt: skip
"""At least so many steps between 0 and the largest weight of a group."""


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_quantised_is_read_back(format: str) -> None:
    values = np.random.default_rng(1).standard_normal((7, 512)).astype(np.float32)
    values[2, :64] = 0
    raw = quantise(values, format)
    found = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[format])
    largest = np.abs(values).reshape(7, -1, 256).max(axis=-1, keepdims=True)
    off = np.abs(found - values).reshape(7, -1, 256) / largest
    assert off.max() <= 1 / STEPS[format]
    if format.endswith("K"):  # a matrix has more than its extremes
        assert off.mean() < 0.3 / STEPS[format]


def test_short_rows_take_what_stands_in() -> None:
    assert [format_for(name, 576) for name in ("Q4_K", "Q5_K", "Q6_K")] == ["Q5_0", "Q5_1", "Q8_0"]
    assert format_for("Q4_K", 1536) == "Q4_K"
    assert format_for("Q4_0", 576) == "Q4_0"


def test_a_requantised_file_is_the_same_model_in_another_format(tmp_path: Path) -> None:
    tiny = Tiny(hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=96, tied=True)
    source = write_gguf(tmp_path / "source.gguf", tiny)
    requantise(source, tmp_path / "few.gguf", "Q4_1")
    requantise(source, tmp_path / "many.gguf", "Q8_0")
    kinds = {name: t.kind.name for name, t in read_gguf(tmp_path / "few.gguf").tensors.items()}
    assert kinds.pop("token_embd.weight") == "Q8_0"
    assert {kind for name, kind in kinds.items() if "norm" in name} == {"F32"}
    assert {kind for name, kind in kinds.items() if "norm" not in name} == {"Q4_1"}
    old, new = read_checkpoint(source), read_checkpoint(tmp_path / "many.gguf")
    assert new.config == old.config
    assert new.tokenizer.encode("hello") == old.tokenizer.encode("hello")
    name, shape = "blk.1.attn_q.weight", (64, 64)
    values = old.tensors.take(name, *shape).numpy()
    np.testing.assert_allclose(new.tensors.take(name, *shape), values, atol=0.005)


def fixed(probabilities: NDArray[np.float64]) -> Any:
    """A runner whose rows all have these probabilities, with some constant added."""

    def logits(batch: Batch, rows: Ints) -> NDArray[np.float32]:
        return np.tile(np.log(probabilities) + 3, (len(rows), 1)).astype(np.float32)

    return logits


def test_divergence_is_what_the_definition_says() -> None:
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.5, 0.25])
    batches = list(windows([0, 1, 2, 0, 1, 0], 4, 16))
    found = compare(fixed(p), fixed(q), batches)
    assert found.tokens == 4
    assert found.agreement == 0
    expected = 0.5 * math.log(2) - 0.25 * math.log(2)
    assert found.mean_kl == pytest.approx(expected)
    assert found.max_kl == pytest.approx(expected)
    # Followers are 1, 2, 0 and 0.
    assert found.loss == pytest.approx((2 * math.log(4) + 2 * math.log(2)) / 4)
    same = compare(fixed(p), fixed(p), batches)
    assert (same.agreement, same.mean_kl) == (1, 0)


def test_windows_cover_the_text() -> None:
    batches = list(windows(range(100), 40, 16))
    assert [token for batch in batches for token in batch.tokens] == list(range(100))
    assert [list(batch.pages) for batch in batches] == [[0, 1, 2], [0, 1, 2], [0, 1]]
    assert [batch.lengths[0] for batch in batches] == [40, 40, 20]
    assert all(batch.positions[0] == 0 for batch in batches)


@pytest.mark.slow
def test_the_text_has_two_thousand_tokens() -> None:
    tokenizer = read_checkpoint(smollm2_path()).tokenizer
    assert len(tokenizer.encode(TEXT.read_text(encoding="utf-8"))) >= 2000
