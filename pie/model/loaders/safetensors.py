"""From a Hugging Face folder (config.json, *.safetensors, tokenizer.json) to a checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from pie.errors import ModelError

from ..chat import stop_tokens
from ..checkpoint import Checkpoint, Tensors
from ..config import LlamaConfig
from ..packed.matrix import Matrix
from ..tokenizer_json import tokenizer_from_json
from .safetensors_file import read_matrices

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
"""Values of `model_type` in config.json."""

_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_OUTER_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def load_folder(folder: Path) -> Checkpoint:
    """Understand `folder`; ModelError says in one line what is wrong with it."""
    facts = _json(folder / "config.json")
    kind = facts.get("model_type")
    if kind not in ARCHITECTURES:
        raise ModelError(
            f"{folder}: model type {kind!r} is not supported ({', '.join(ARCHITECTURES)} are)"
        )
    readers, matrices = _readers(folder)
    tokenizer = tokenizer_from_json(folder / "tokenizer.json")
    template, ends = _chat(folder)
    _, texts = tokenizer.special_tokens()
    present = [text.decode() for text in texts]
    named = [present.index(end) for end in ends if end in present]
    config = _config(facts, folder, readers)
    divisors = _rope_divisors(facts, config, folder)
    if divisors is not None:
        readers["rope_freqs.weight"] = lambda: divisors
    tensors = Tensors(readers, str(folder), matrices)
    if config.tied:
        tensors.drop(["output.weight"])
    return Checkpoint(
        name=folder.name,
        description=f"{kind}, {config.layers} layers of {config.hidden}",
        config=config,
        tensors=tensors,
        tokenizer=tokenizer,
        prompt_template=template,
        stop_tokens=stop_tokens(present, named),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ModelError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path}: not a JSON object")
    return content


def _chat(folder: Path) -> tuple[str, list[str]]:
    """The chat template, and the texts of the tokens that the folder names as ends."""
    path = folder / "tokenizer_config.json"
    facts = _json(path) if path.exists() else {}
    template = facts.get("chat_template") or ""
    if isinstance(template, list):  # named templates
        named = {entry["name"]: entry["template"] for entry in template}
        template = named.get("default", "")
    beside = folder / "chat_template.jinja"
    if beside.exists():
        template = beside.read_text(encoding="utf-8")
    end = facts.get("eos_token")
    if isinstance(end, dict):
        end = end.get("content")
    return template, [end] if end else []


def _config(facts: dict[str, Any], folder: Path, readers: dict[str, Any]) -> LlamaConfig:
    def number(key: str) -> int:
        if not isinstance(facts.get(key), int):
            raise ModelError(f"{folder}/config.json: {key} is missing or not a whole number")
        return int(facts[key])

    if facts.get("hidden_act", "silu") != "silu":
        raise ModelError(f"{folder}: activation {facts['hidden_act']!r} is not supported")
    heads, hidden = number("num_attention_heads"), number("hidden_size")
    context = number("max_position_embeddings")
    window = facts.get("sliding_window")
    if not facts.get("use_sliding_window", True):
        window = None
    return LlamaConfig(
        layers=number("num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=facts.get("num_key_value_heads") or heads,
        head_dim=facts.get("head_dim") or hidden // max(heads, 1),
        ffn=number("intermediate_size"),
        vocabulary=number("vocab_size"),
        # Within its window, a model with sliding attention is one without.
        context_length=min(context, window) if window else context,
        rope_theta=float(_rope(facts).get("rope_theta") or facts.get("rope_theta") or 10000.0),
        norm_epsilon=float(facts.get("rms_norm_eps", 1e-6)),
        tied=bool(facts.get("tie_word_embeddings", False)),
        qkv_bias="blk.0.attn_q.bias" in readers,
        qk_norm="blk.0.attn_q_norm.weight" in readers,
    )


def _rope(facts: dict[str, Any]) -> dict[str, Any]:
    """The rotary settings, under their older or newer key."""
    return facts.get("rope_scaling") or facts.get("rope_parameters") or {}


def _rope_divisors(facts: dict[str, Any], config: LlamaConfig, folder: Path) -> torch.Tensor | None:
    """What the rotary frequencies are divided by, [head_dim / 2]."""
    rope = _rope(facts)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return None
    half = config.head_dim // 2
    if kind == "linear":
        return torch.full((half,), float(rope["factor"]))
    if kind != "llama3":
        raise ModelError(f"{folder}: rope scaling {kind!r} is not supported")
    # Llama 3.1: long waves are stretched by `factor`, short ones kept, a ramp lies between.
    exponent = torch.arange(half, dtype=torch.float32) * 2 / config.head_dim
    waves = 2 * math.pi * config.rope_theta**exponent
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    turns = float(rope["original_max_position_embeddings"]) / waves
    kept = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return 1.0 / ((1.0 - kept) / float(rope["factor"]) + kept)


def _readers(folder: Path) -> tuple[dict[str, Callable[[], torch.Tensor]], dict[str, Matrix]]:
    """Readers and matrices by canonical name, over all safetensors files of the folder."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        files = sorted({folder / name for name in _json(index).get("weight_map", {}).values()})
    else:
        files = [folder / "model.safetensors"]
    readers: dict[str, Callable[[], torch.Tensor]] = {}
    matrices: dict[str, Matrix] = {}
    for file in files:
        try:
            opened: Any = safe_open(file, framework="pt")
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file}: cannot be read as safetensors: {error}") from None
        for name in opened.keys():  # noqa: SIM118 - not a dict
            if not name.endswith(".rotary_emb.inv_freq"):
                readers[_canonical(name)] = partial(opened.get_tensor, name)
        matrices |= {_canonical(name): found for name, found in read_matrices(file).items()}
    return readers, matrices


def _canonical(name: str) -> str:
    if name in _OUTER_NAMES:
        return _OUTER_NAMES[name]
    parts = name.split(".")  # model.layers.N.<path>.weight
    path = ".".join(parts[3:-1])
    if parts[:2] == ["model", "layers"] and path in _LAYER_NAMES:
        return f"blk.{parts[2]}.{_LAYER_NAMES[path]}.{parts[-1]}"
    return name
