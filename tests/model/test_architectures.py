"""Every supported shape answers what a plain float64 computation does, from either format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pie.batch import ints
from pie.errors import ModelError
from pie.model import load
from pie.model.runner import TorchRunner
from tests.model.support import Pass, make_batch
from tests.model.tiny import Tiny, reference_logits, write_folder, write_gguf

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
VARIANTS = {
    "llama": Tiny(),
    "llama-tied": Tiny(tied=True, seed=2),
    "one-head-each": Tiny(heads=4, kv_heads=4, head_dim=12),
    "wide-group": Tiny(heads=9, kv_heads=1, head_dim=4),
    "llama3-rope": Tiny(rope=LLAMA3_ROPE, head_dim=16, seed=3),
    "linear-rope": Tiny(rope={"rope_type": "linear", "factor": 4.0}),
    "qwen2": Tiny(kind="qwen2", bias=True, seed=4),
    "qwen3": Tiny(kind="qwen3", qk_norm=True, head_dim=16, tied=True, seed=5),
}
TOKENS = [(37 * i + 5) % 250 for i in range(83)]


def logits_of(path: Path) -> torch.Tensor:
    runner = load(path, dtype="float32", pages=8)
    assert isinstance(runner, TorchRunner)
    batch = make_batch([Pass(tokens=TOKENS, pages=range(6))])
    return runner.logits(batch, ints(range(len(TOKENS))))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_gguf_file_answers_as_computed_by_hand(name: str, tmp_path: Path) -> None:
    tiny = VARIANTS[name]
    found = logits_of(write_gguf(tmp_path / "tiny.gguf", tiny))
    np.testing.assert_allclose(found, reference_logits(tiny, TOKENS), atol=2e-4)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_folder_answers_as_computed_by_hand(name: str, tmp_path: Path) -> None:
    tiny = VARIANTS[name]
    found = logits_of(write_folder(tmp_path / "tiny", tiny))
    np.testing.assert_allclose(found, reference_logits(tiny, TOKENS), atol=2e-4)


def test_shards_and_formats_give_the_same_bits(tmp_path: Path) -> None:
    tiny = Tiny()
    whole = logits_of(write_folder(tmp_path / "whole", tiny))
    assert torch.equal(whole, logits_of(write_folder(tmp_path / "shards", tiny, shards=3)))
    assert torch.equal(whole, logits_of(write_gguf(tmp_path / "tiny.gguf", tiny)))


def test_a_tensor_without_a_place_is_refused(tmp_path: Path) -> None:
    extra = {"blk.0.attn_sinks.weight": np.zeros(6, np.float32)}
    path = write_gguf(tmp_path / "tiny.gguf", Tiny(), tensors=extra)
    with pytest.raises(ModelError, match=r"1 tensors have no place .* blk\.0\.attn_sinks\.weight"):
        load(path)


def test_a_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    wrong = {"model.layers.1.mlp.up_proj.weight": np.zeros((40, 47), np.float32)}
    path = write_gguf(tmp_path / "tiny.gguf", Tiny(), tensors=wrong)
    with pytest.raises(ModelError, match=r"blk\.1\.ffn_up\.weight has shape \[40, 47\]"):
        load(path)


def test_an_unknown_architecture_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="'mamba' is not supported"):
        load(write_gguf(tmp_path / "tiny.gguf", Tiny(), architecture="mamba"))
    with pytest.raises(ModelError, match="'mamba' is not supported"):
        load(write_folder(tmp_path / "tiny", Tiny(kind="mamba")))


def test_facts_of_a_model_come_from_its_files(tmp_path: Path) -> None:
    for path in (write_gguf(tmp_path / "t.gguf", Tiny()), write_folder(tmp_path / "t", Tiny())):
        info = load(path, pages=5, embedding_slots=3).info
        assert info.stop_tokens == ("<|im_end|>",)
        assert info.prompt_template.startswith("{% for m in messages %}")
        assert (info.pages, info.embedding_slots, info.vocabulary) == (5, 3, Tiny().vocabulary)


def test_the_default_number_of_pages_holds_65536_tokens(tmp_path: Path) -> None:
    info = load(write_gguf(tmp_path / "t.gguf", Tiny())).info
    assert info.pages * info.page_size == 65536
