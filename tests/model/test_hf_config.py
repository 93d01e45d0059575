"""config.json in the forms that published models have: read as `transformers` reads it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

from pie.errors import ModelError
from pie.model.blocks import Rotary
from pie.model.config import Activation, LlamaConfig
from pie.model.loaders.families import FAMILIES
from pie.model.loaders.hf_config import hf_config
from pie.model.loading import read_checkpoint
from pie.model.rope import Rope
from tests.model.published import KINDS
from tests.model.tiny import Tiny, write_folder

COMMON = {"num_hidden_layers": 12, "hidden_size": 512, "intermediate_size": 1024}
LLAMA_3 = {
    **COMMON,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
}
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", LLAMA_3),
    "mistral-0.1": ("mistral", {**LLAMA_3, "rope_scaling": None, "sliding_window": 4096}),
    "mistral-silent": ("mistral", {**LLAMA_3, "rope_scaling": None}),
    "mistral-0.3": ("mistral", {**LLAMA_3, "rope_scaling": None, "sliding_window": None}),
    "qwen2.5": (
        "qwen2",
        {
            **LLAMA_3,
            "rope_scaling": {
                "type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 32768,
            },
            "sliding_window": 131072,
            "use_sliding_window": False,
            "max_window_layers": 10,
        },
    ),
    "qwen3-silent": ("qwen3", {**LLAMA_3, "rope_scaling": None}),
    "gemma2": (
        "gemma2",
        {**COMMON, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1000}
        | {"max_position_embeddings": 8192, "hidden_act": "gelu_pytorch_tanh"},
    ),
    "gemma3-1b": (
        "gemma3",
        {
            **COMMON,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "vocab_size": 1000,
            "max_position_embeddings": 32768,
            "rope_local_base_freq": 10000,
            "rope_theta": 1000000,
            "rope_scaling": None,
            "sliding_window": 512,
            "sliding_window_pattern": 6,
        },
    ),
    "gemma3-4b-text": (
        "gemma3",
        {
            **COMMON,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
        },
    ),
    "smollm3": (
        "smollm3",
        {**LLAMA_3, "rope_scaling": None, "rope_theta": 5e6, "no_rope_layers": [1, 0, 1] * 4},
    ),
    "olmo2": ("olmo2", {**LLAMA_3, "rope_scaling": None, "num_key_value_heads": None}),
    "olmo3": (
        "olmo3",
        {
            **LLAMA_3,
            "rope_scaling": {
                "attention_factor": 1.2079441541679836,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "factor": 8.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "yarn",
            },
            "max_position_embeddings": 65536,
        },
    ),
}


def read(kind: str, facts: dict[str, Any]) -> LlamaConfig:
    family = FAMILIES["gemma3_text" if kind == "gemma3" else kind]
    return hf_config(facts, family, (), Path("config.json"))


def frequencies(theirs: Any, kind: str) -> tuple[torch.Tensor, float]:
    """Those of layers of a `kind` of attention, by the rotary module of `transformers`."""
    model_class = KINDS[theirs.model_type.removesuffix("_text")][1]
    name = model_class.__name__.replace("ForCausalLM", "RotaryEmbedding")
    rotary = getattr(sys.modules[model_class.__module__], name)(theirs)
    name = f"{kind}_" if hasattr(rotary, f"{kind}_inv_freq") else ""
    return getattr(rotary, f"{name}inv_freq"), getattr(rotary, f"{name}attention_scaling")


@pytest.mark.parametrize("name", FORMS)
def test_a_config_is_read_as_transformers_reads_it(name: str) -> None:
    kind, facts = FORMS[name]
    ours, theirs = read(kind, facts), KINDS[kind][0](**json.loads(json.dumps(facts)))
    heads = theirs.num_attention_heads
    head_dim = getattr(theirs, "head_dim", None) or theirs.hidden_size // heads
    assert (ours.heads, ours.kv_heads, ours.head_dim) == (
        heads,
        theirs.num_key_value_heads,
        head_dim,
    )
    assert ours.tied == theirs.tie_word_embeddings
    assert ours.norm_epsilon == theirs.rms_norm_eps
    assert ours.vocabulary == theirs.vocab_size
    activation = getattr(theirs, "hidden_activation", None) or theirs.hidden_act
    assert (ours.activation is Activation.SILU) == (activation == "silu")
    size = getattr(theirs, "query_pre_attn_scalar", head_dim)
    assert ours.query_scale == pytest.approx(size**-0.5)
    assert ours.attention_cap == (getattr(theirs, "attn_logit_softcapping", None) or 0.0)
    assert ours.logit_cap == (getattr(theirs, "final_logit_softcapping", None) or 0.0)
    window = getattr(theirs, "sliding_window", None)
    default = ["sliding_attention" if kind == "mistral" and window else "full_attention"]
    types = getattr(theirs, "layer_types", None) or default * ours.layers
    assert ours.windows == tuple(window if t == "sliding_attention" else 0 for t in types)
    rotates = getattr(theirs, "no_rope_layers", None) or [1] * ours.layers
    assert [rope is not None for rope in ours.rope] == [bool(turned) for turned in rotates]
    for layer_type, rope in {*zip(types, ours.rope, strict=True)}:
        if rope is not None:
            frequency, factor = frequencies(theirs, layer_type)
            torch.testing.assert_close(Rotary.build(head_dim, rope).frequency, frequency)
            assert rope.factor == pytest.approx(factor)


def test_yarn_stretches_a_context_that_a_config_tells_unstretched() -> None:
    kind, facts = FORMS["qwen2.5"]
    assert read(kind, {**facts, "max_position_embeddings": 32768}).context_length == 131072
    kind, facts = FORMS["olmo3"]
    assert read(kind, facts).context_length == 65536


def test_dynamic_scaling_is_none_within_the_context() -> None:
    facts = {**LLAMA_3, "rope_scaling": {"type": "dynamic", "factor": 2.0}}
    config = read("llama", facts)
    assert config.rope[0] == Rope(theta=500000.0)
    assert config.context_length == 131072


REFUSED: dict[str, dict[str, Any]] = {
    "'longrope' is not supported": {"rope_scaling": {"type": "longrope", "factor": 4.0}},
    "'linear' lacks a number": {"rope_scaling": {"type": "linear"}},
    "turned in part": {"partial_rotary_factor": 0.5},
    "'relu' is not supported": {"hidden_act": "relu"},
    "vocab_size is missing": {"vocab_size": None},
    "attention to later tokens": {"use_bidirectional_attention": True},
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_not_built_is_refused(why: str) -> None:
    with pytest.raises(ModelError, match=why):
        read("llama", {**LLAMA_3, **REFUSED[why]})


def test_layer_types_that_nobody_knows_are_refused() -> None:
    kind, facts = FORMS["gemma2"]
    for told in (["full_attention"], ["chunked_attention"] * 12):
        with pytest.raises(ModelError, match="layer_types does not name 12"):
            read(kind, {**facts, "layer_types": told})


def test_a_config_checks_its_layers() -> None:
    config = read("llama", LLAMA_3)
    wrong: dict[str, dict[str, Any]] = {
        "windows tells of 1 layers": {"windows": (0,)},
        "rope tells of 1 layers": {"rope": (None,)},
        "a window of -1 slots": {"windows": (-1,) * 12},
        "3 rotary divisors for 32 pairs": {"rope": (Rope(divisors=(1.0,) * 3),) * 12},
    }
    for why, changes in wrong.items():
        with pytest.raises(ModelError, match=why):
            attrs.evolve(config, **changes)


def test_ends_and_the_first_token_come_from_all_their_places(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, Tiny())
    facts = {"chat_template": "{{ bos_token }}-{{ 1 }}", "bos_token": '<|"|>', "eos_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": 1}))
    info = read_checkpoint(folder)
    assert info.stop_tokens == ("<|im_end|>",)
    assert info.prompt_template == '{% set bos_token = "<|\\"|>" %}{{ bos_token }}-{{ 1 }}'
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 1, 77, 9999]}))
    assert read_checkpoint(folder).stop_tokens == ("<|begin|>", "<|im_end|>")
