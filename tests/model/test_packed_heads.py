"""Heads of sizes that are no multiple of what the kernels take are packed all the same."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pie.model import KVType, load
from tests.model.published import answers, published, save
from tests.model.published_gguf import save_gguf
from tests.model.support import Pass
from tests.model.test_against_transformers import VARIANTS

pytest.importorskip("llvmlite")

from pie.kernels.cpu.target import detect
from pie.model.packed.runner import PackedRunner
from tests.model.test_packed_family import TOKENS, divergence, loaded, logits

pytestmark = [
    pytest.mark.skipif(detect() is None, reason="no packed kernels for this machine"),
    pytest.mark.usefixtures("one_thread"),
]

SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "8": ("llama-tied-biased", {"num_attention_heads": 8, "num_key_value_heads": 4}),
    "16": ("llama-3", {}),
    "20": ("llama-biased", {"num_attention_heads": 8, "head_dim": 20}),
    "48": ("smollm3", {"num_attention_heads": 2, "head_dim": 48, "num_key_value_heads": 1}),
    "80": ("llama-yarn", {"num_attention_heads": 2, "head_dim": 80}),
    "100": ("qwen2", {"num_attention_heads": 8, "head_dim": 100}),
    "24 normalised": ("qwen3", {"rms_norm_eps": 0.3}),
    "24 with caps and windows": ("gemma2", {}),
    "16 in rows": ("olmo3", {}),
    "12 in rows": (
        "olmo2",
        {"num_attention_heads": 8, "hidden_size": 96, "rms_norm_eps": 0.3},
    ),
}
"""By the size of a head: a variant, and what else it has of its own."""
NEAR = 0.02
"""Most KL per token. Norms whose epsilon or weight forgets the zeros make 0.06 to 1, a rotation by
the size with zeros 0.3 to 1.4."""


def of_size(name: str) -> Any:
    variant, changes = SIZES[name]
    kind, facts = VARIANTS[variant]
    return published(kind, seed=1, **{**facts, **changes})


@pytest.mark.parametrize("kv", ["auto", "int8"])
@pytest.mark.parametrize("name", SIZES)
def test_heads_of_any_size_are_near_those_of_transformers(
    name: str, kv: KVType, tmp_path: Path
) -> None:
    model = of_size(name)
    runner = load(save(model, tmp_path), pages=14, threads=1, kv=kv)
    assert isinstance(runner, PackedRunner)
    try:
        found = logits(runner, [Pass(tokens=TOKENS, pages=range(7))], adapter=-1)
    finally:
        runner.close()
    assert divergence(answers(model, TOKENS).numpy(), found) < NEAR


@pytest.mark.parametrize("name", ["16", "80", "24 normalised", "12 in rows"])
def test_their_rows_have_their_own_bits_and_adapters_act(name: str, tmp_path: Path) -> None:
    folder = save(of_size(name), tmp_path)
    passes = [Pass(tokens=TOKENS, pages=range(7))]
    runner = loaded(folder, threads=3)
    assert isinstance(runner, PackedRunner)
    try:
        for adapter in (-1, 1):
            whole = logits(runner, passes, adapter)
            for start, end in pairwise((0, 1, 34, 109, 110)):
                piece = Pass(tokens=TOKENS[start:end], pages=range(7, 14), length=end)
                assert np.array_equal(logits(runner, [piece], adapter), whole[start:end])
            exact = logits(loaded(folder, dtype="float32"), passes, adapter)
            assert divergence(exact, whole) < NEAR
    finally:
        runner.close()


def test_a_gguf_file_has_the_bits_of_the_folder(tmp_path: Path) -> None:
    """Its rows of q and k are in another order, into which the zeros are put, too."""
    model, found = of_size("20"), []
    for path in (save(model, tmp_path / "folder"), save_gguf(model, tmp_path / "t.gguf")):
        runner = load(path, pages=7, threads=1)
        found.append(logits(runner, [Pass(tokens=TOKENS, pages=range(7))], adapter=-1))
        runner.close()
    assert np.array_equal(found[0], found[1])
