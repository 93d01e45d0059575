"""How far the packed runner is from the float32 path over the same weights, by format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy.__main__ import TEXT
from benchmarks.accuracy.compare import Divergence, compare, windows
from benchmarks.accuracy.files import requantise
from benchmarks.accuracy.folder import write_folder
from pie.model import DType, load
from pie.model.loading import read_checkpoint
from pie.model.packed.choice import obstacle_of_machine
from pie.model.runner import TorchRunner
from tests.model.tiny import Tiny, write_gguf
from tests.model_file import smollm2_path

pytest.importorskip("llvmlite")

from pie.model.packed.runner import PackedRunner

pytestmark = pytest.mark.skipif(obstacle_of_machine() is not None, reason="no packed kernels")

TINY = Tiny(hidden=256, heads=4, kv_heads=2, head_dim=64, ffn=256, layers=2, tied=True)


def divergence(path: Path, tokens: list[int], size: int, dtype: DType = "auto") -> Divergence:
    exact = load(path, dtype="float32", pages=32, adapter_slots=0)
    packed = load(path, dtype=dtype, pages=32, adapter_slots=0)
    assert isinstance(exact, TorchRunner)
    assert isinstance(packed, PackedRunner)
    try:
        return compare(exact.logits, packed.logits, list(windows(tokens, size, 16)))
    finally:
        packed.close()


@pytest.mark.parametrize(
    ("format", "dtype"),
    [("Q4_1", "auto"), ("Q5_1", "auto"), ("Q4_K", "auto"), ("F32", "auto"), ("BF16", "bfloat16")],
)
def test_every_kind_is_near_its_own_float32_path(tmp_path: Path, format: str, dtype: DType) -> None:
    """Random weights are far surer of themselves than a model is, so that rounding shows: 0.04.
    A kind that is packed or multiplied wrongly is 5 or more away."""
    source = write_gguf(tmp_path / "source.gguf", TINY)
    requantise(source, tmp_path / "t.gguf", format)
    tokens = np.random.default_rng(1).integers(0, TINY.vocabulary, 128).tolist()
    found = divergence(tmp_path / "t.gguf", tokens, 64, dtype)
    assert found.mean_kl < 0.1, found
    assert found.agreement > 0.8, found


def test_a_folder_of_the_same_weights_is_as_near_as_the_file(tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "source.gguf", TINY)
    requantise(source, tmp_path / "t.gguf", "BF16")
    write_folder(source, tmp_path / "folder")
    tokens = np.random.default_rng(1).integers(0, TINY.vocabulary, 128).tolist()
    found = [divergence(tmp_path / name, tokens, 64) for name in ("t.gguf", "folder")]
    assert found[0] == found[1]


@pytest.mark.slow
def test_the_real_model_keeps_its_distance() -> None:
    """The issue's goal for Q4_1, on the first part of the text."""
    path = smollm2_path()
    tokens = read_checkpoint(path).tokenizer.encode(TEXT.read_text(encoding="utf-8"))
    found = divergence(path, tokens[:256], 256)
    assert found.mean_kl < 0.005, found
    assert found.agreement > 0.93, found
