"""Random checkpoints that `transformers` writes answer here as they answer there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pie.batch import ints
from pie.model import load
from pie.model.runner import TorchRunner
from tests.model.published import answers, published, published_with_images, save
from tests.model.published_gguf import save_gguf
from tests.model.support import Pass, greedy, make_batch

PROMPT = [(37 * i + 5) % 250 for i in range(70)]
OTHER = [(11 * i + 3) % 250 for i in range(30)]
STEPS = 24
MARGIN = 1e-3
"""Between the best two logits: what rounding cannot turn around."""

YARN = {
    "rope_type": "yarn",
    "rope_theta": 1000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}
GEMMA = {"head_dim": 24, "query_pre_attn_scalar": 24, "num_hidden_layers": 3}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-3": ("llama", {"rope_parameters": LLAMA3}),
    "llama-tied-biased": (
        "llama",
        {"attention_bias": True, "tie_word_embeddings": True, "rope_parameters": LINEAR},
    ),
    "llama-biased": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-yarn": ("llama", {"rope_parameters": YARN, "max_position_embeddings": 256}),
    "llama-dynamic": ("llama", {"rope_parameters": {**LINEAR, "rope_type": "dynamic"}}),
    "mistral": ("mistral", {"sliding_window": 21, "head_dim": 24}),
    "mistral-all": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2-windows": (
        "qwen2",
        {
            "num_hidden_layers": 3,
            "use_sliding_window": True,
            "sliding_window": 17,
            "max_window_layers": 1,
        },
    ),
    "qwen3": (
        "qwen3",
        {
            "head_dim": 24,
            "rope_parameters": {**YARN, "attention_factor": 1.2, "beta_fast": 16.0},
            "max_position_embeddings": 64,
        },
    ),
    "qwen3-plain": ("qwen3", {"head_dim": 24, "tie_word_embeddings": True}),
    "gemma2": (
        "gemma2",
        {
            **GEMMA,
            "sliding_window": 33,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 10.0,
        },
    ),
    "gemma3-other-pattern": (
        "gemma3",
        {
            **GEMMA,
            "query_pre_attn_scalar": 20,
            "final_logit_softcapping": 9.0,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "sliding_window": 16,
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 4000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
        },
    ),
    "gemma3": (
        "gemma3",
        {
            **GEMMA,
            "num_hidden_layers": 6,
            "sliding_window": 16,
            "rope_parameters": {
                "full_attention": {**LINEAR, "rope_theta": 4000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        },
    ),
    "smollm3": ("smollm3", {"num_hidden_layers": 4}),
    "smollm3-windows": (
        "smollm3",
        {"no_rope_layer_interval": 2, "use_sliding_window": True, "sliding_window": 40},
    ),
    "olmo2": ("olmo2", {}),
    "olmo3": (
        "olmo3",
        {
            "num_hidden_layers": 4,
            "sliding_window": 19,
            "max_position_embeddings": 256,
            "rope_parameters": {
                "full_attention": YARN,
                "sliding_attention": {"rope_type": "default", "rope_theta": 1000.0},
            },
        },
    ),
}
SEEDS = {"smollm3": 2, "olmo2": 2}
"""Where that of the others makes a close call."""


pytestmark = pytest.mark.usefixtures("one_thread")


def generated(runner: TorchRunner) -> list[int]:
    """What follows PROMPT, read in pieces in company and decoded on scattered pages."""
    mine, others = [9, 2, 11, 4, 0, 7], [5, 3, 8, 6]
    runner.run(make_batch([Pass(tokens=PROMPT[:37], pages=mine)]))
    rest = [
        Pass(tokens=OTHER, pages=others),
        Pass(tokens=PROMPT[37:], pages=mine, length=len(PROMPT)),
    ]
    row = len(OTHER) + len(PROMPT) - 37 - 1
    tokens: list[int] = runner.run(make_batch(rest, **greedy([row]))).tokens.tolist()
    for i in range(1, STEPS):
        step = [
            Pass(tokens=tokens[-1:], pages=mine, length=len(PROMPT) + i),
            Pass(tokens=[i], pages=others, length=len(OTHER) + i),
        ]
        tokens += runner.run(make_batch(step, **greedy([0]))).tokens.tolist()
    return tokens


@pytest.mark.parametrize("name", VARIANTS)
def test_tokens_and_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    kind, facts = VARIANTS[name]
    model = published(kind, seed=SEEDS.get(name, 1), **facts)
    runner = load(save(model, tmp_path, shard="60KB"), dtype="float32", pages=16)
    assert isinstance(runner, TorchRunner)
    assert runner.invariant
    tokens = generated(runner)
    text = [*PROMPT, *tokens]
    wanted = answers(model, text)
    best, chosen = wanted[len(PROMPT) - 1 : -1].topk(2)
    assert (best[:, 0] - best[:, 1]).min() > MARGIN, "choose another seed"
    assert tokens == chosen[:, 0].tolist()
    found = runner.logits(make_batch([Pass(tokens=text, pages=range(6))]), ints(range(len(text))))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_of_a_model_with_images_the_text_model_is_loaded(tmp_path: Path) -> None:
    model = published_with_images(seed=1, **VARIANTS["gemma3"][1])
    runner = load(save(model, tmp_path), dtype="float32", pages=16)
    assert isinstance(runner, TorchRunner)
    batch = make_batch([Pass(tokens=PROMPT, pages=range(6))])
    found = runner.logits(batch, ints(range(len(PROMPT))))
    torch.testing.assert_close(found, answers(model, PROMPT), atol=1e-4, rtol=1e-4)


GGUF = [
    "llama-biased",
    "llama-tied-biased",
    "llama-yarn",
    "mistral",
    "qwen2",
    "qwen2-windows",
    "qwen3",
    "qwen3-plain",
    "gemma2",
    "gemma3",
    "smollm3",
    "olmo2",
    "olmo3",
]
"""Variants without a fact for which GGUF files have no key."""


@pytest.mark.parametrize("name", GGUF)
def test_a_gguf_file_has_the_bits_of_the_folder(name: str, tmp_path: Path) -> None:
    """Also of rotary rows, norms and per-layer facts, which the formats tell differently."""
    kind, facts = VARIANTS[name]
    model = published(kind, seed=1, **facts)
    logits = []
    for path in (save(model, tmp_path / "folder"), save_gguf(model, tmp_path / "tiny.gguf")):
        runner = load(path, dtype="float32", pages=16)
        assert isinstance(runner, TorchRunner)
        batch = make_batch([Pass(tokens=PROMPT, pages=range(6))])
        logits.append(runner.logits(batch, ints(range(len(PROMPT)))))
    assert torch.equal(*logits)
