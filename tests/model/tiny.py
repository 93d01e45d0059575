"""Tiny random models of every supported shape, written as files, and what they should answer."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import attrs
import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from pie.model.tokenizer import byte_alphabet

Array = NDArray[np.float32]

SPECIALS = ("<|begin|>", "<|im_end|>")
MERGES = [("h", "e"), ("l", "l"), ("he", "ll"), ("Ġ", "w")]
TOKENS = [*SPECIALS, *sorted(byte_alphabet()), *("".join(pair) for pair in MERGES)]
TEMPLATE = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"


@attrs.frozen(kw_only=True)
class Tiny:
    """Sizes of a tiny model; `kind` is the model type of its files."""

    kind: str = "llama"
    layers: int = 2
    hidden: int = 48
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 8
    ffn: int = 40
    vocabulary: int = len(TOKENS) + 6
    context: int = 512
    theta: float = 500.0
    epsilon: float = 1e-5
    tied: bool = False
    bias: bool = False
    qk_norm: bool = False
    rope: dict[str, Any] = attrs.field(factory=dict)
    """`rope_scaling` of config.json."""
    seed: int = 1

    def weights(self) -> dict[str, Array]:
        """Random tensors under their Hugging Face names."""
        random = np.random.default_rng(self.seed)
        shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocabulary, self.hidden),
            "model.norm.weight": (self.hidden,),
        }
        if not self.tied:
            shapes["lm_head.weight"] = (self.vocabulary, self.hidden)
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        for i in range(self.layers):
            name = f"model.layers.{i}"
            for part, rows in (("q", q), ("k", kv), ("v", kv)):
                shapes[f"{name}.self_attn.{part}_proj.weight"] = (rows, self.hidden)
                if self.bias:
                    shapes[f"{name}.self_attn.{part}_proj.bias"] = (rows,)
            if self.qk_norm:
                shapes[f"{name}.self_attn.q_norm.weight"] = (self.head_dim,)
                shapes[f"{name}.self_attn.k_norm.weight"] = (self.head_dim,)
            shapes[f"{name}.self_attn.o_proj.weight"] = (self.hidden, q)
            shapes[f"{name}.mlp.gate_proj.weight"] = (self.ffn, self.hidden)
            shapes[f"{name}.mlp.up_proj.weight"] = (self.ffn, self.hidden)
            shapes[f"{name}.mlp.down_proj.weight"] = (self.hidden, self.ffn)
            shapes[f"{name}.input_layernorm.weight"] = (self.hidden,)
            shapes[f"{name}.post_attention_layernorm.weight"] = (self.hidden,)
        return {
            name: (random.standard_normal(shape) * (0.2 if len(shape) > 1 else 1.0)).astype(
                np.float32
            )
            for name, shape in shapes.items()
        }


def write_folder(folder: Path, tiny: Tiny, *, shards: int = 1) -> Path:
    """Write `tiny` as a Hugging Face folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": tiny.kind,
        "num_hidden_layers": tiny.layers,
        "hidden_size": tiny.hidden,
        "num_attention_heads": tiny.heads,
        "num_key_value_heads": tiny.kv_heads,
        "head_dim": tiny.head_dim,
        "intermediate_size": tiny.ffn,
        "vocab_size": tiny.vocabulary,
        "max_position_embeddings": tiny.context,
        "rope_theta": tiny.theta,
        "rms_norm_eps": tiny.epsilon,
        "tie_word_embeddings": tiny.tied,
        "hidden_act": "silu",
    }
    if tiny.rope:
        config["rope_scaling"] = tiny.rope
    (folder / "config.json").write_text(json.dumps(config))
    weights = list(tiny.weights().items())
    if shards == 1:
        save_file(dict(weights), folder / "model.safetensors")
    else:
        names: dict[str, str] = {}
        for i in range(shards):
            part = dict(weights[i::shards])
            names |= dict.fromkeys(part, f"part-{i}.safetensors")
            save_file(part, folder / f"part-{i}.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    hf_tokenizer().save(str(folder / "tokenizer.json"))
    facts = {"chat_template": TEMPLATE, "eos_token": {"content": "<|im_end|>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))
    return folder


def hf_tokenizer() -> Tokenizer:
    vocabulary = {text: i for i, text in enumerate(TOKENS)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIALS])
    return tokenizer


_GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def interleave(values: Array, heads: int) -> Array:
    """Rows of each head from halves to neighbours, as GGUF files of llama models have them."""
    halves = values.reshape(heads, 2, -1, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)


def write_gguf(path: Path, tiny: Tiny, **changes: Any) -> Path:
    """Write `tiny` as a GGUF file; `changes` replace arguments of the writer's calls."""
    writer = gguf.GGUFWriter(path, changes.get("architecture", tiny.kind))
    writer.add_name("Tiny")
    writer.add_block_count(tiny.layers)
    writer.add_context_length(tiny.context)
    writer.add_embedding_length(tiny.hidden)
    writer.add_feed_forward_length(tiny.ffn)
    writer.add_head_count(tiny.heads)
    writer.add_head_count_kv(tiny.kv_heads)
    writer.add_key_length(tiny.head_dim)
    writer.add_value_length(tiny.head_dim)
    writer.add_rope_freq_base(tiny.theta)
    writer.add_layer_norm_rms_eps(tiny.epsilon)
    if tiny.rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(tiny.rope["factor"])
    add_tokenizer(writer, tiny.vocabulary, **changes)
    for name, values in {**tiny.weights(), **changes.get("tensors", {})}.items():
        name, values = _gguf_tensor(tiny, name, values)
        format = changes.get("format")
        if format is None or values.ndim < 2:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, format), raw_dtype=format)
    if tiny.rope.get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", rope_divisors(tiny).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tokenizer(writer: gguf.GGUFWriter, vocabulary: int, **changes: Any) -> None:
    """Write the tokenizer of the tests, padded to `vocabulary`, and a chat template."""
    writer.add_tokenizer_model(changes.get("tokenizer", "gpt2"))
    writer.add_tokenizer_pre(changes.get("pre", "gpt-2"))
    padding = [f"[PAD{i}]" for i in range(vocabulary - len(TOKENS))]
    writer.add_token_list([*TOKENS, *padding])
    writer.add_token_types([3] * len(SPECIALS) + [1] * (len(TOKENS) - 2) + [5] * len(padding))
    writer.add_token_merges(changes.get("merges", [" ".join(pair) for pair in MERGES]))
    writer.add_eos_token_id(1)
    writer.add_chat_template(TEMPLATE)


def _gguf_tensor(tiny: Tiny, name: str, values: Array) -> tuple[str, Array]:
    outer = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if not name.startswith("model.layers."):
        return outer.get(name, name), values
    _, _, layer, *path, kind = name.split(".")
    if tiny.kind == "llama" and path[-1] in ("q_proj", "k_proj"):
        values = interleave(values, tiny.heads if path[-1] == "q_proj" else tiny.kv_heads)
    return f"blk.{layer}.{_GGUF_NAMES['.'.join(path)]}.{kind}", values


def rope_divisors(tiny: Tiny) -> NDArray[np.float64]:
    """What the rotary frequencies are divided by, wave by wave as the papers tell it."""
    half = tiny.head_dim // 2
    kind = tiny.rope.get("rope_type")
    if kind == "linear":
        return np.full(half, tiny.rope["factor"])
    divisors = np.ones(half)
    if kind == "llama3":
        original = tiny.rope["original_max_position_embeddings"]
        low, high = tiny.rope["low_freq_factor"], tiny.rope["high_freq_factor"]
        for i in range(half):
            turns = original / (2 * math.pi * tiny.theta ** (2 * i / tiny.head_dim))
            if turns < low:
                divisors[i] = tiny.rope["factor"]
            elif turns < high:
                smooth = (turns - low) / (high - low)
                divisors[i] = 1 / ((1 - smooth) / tiny.rope["factor"] + smooth)
    return divisors


def reference_logits(tiny: Tiny, tokens: list[int]) -> NDArray[np.float64]:
    """Logits of all tokens of one sequence, in float64, without pages or batches."""
    w = {name: values.astype(np.float64) for name, values in tiny.weights().items()}
    half = tiny.head_dim // 2
    wave = tiny.theta ** (-np.arange(half) * 2 / tiny.head_dim) / rope_divisors(tiny)
    angle = np.arange(len(tokens))[:, None, None] * wave

    def norm(x: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
        scaled: NDArray[np.float64] = x / np.sqrt((x * x).mean(-1, keepdims=True) + tiny.epsilon)
        return scaled * weight

    def rotate(x: NDArray[np.float64]) -> NDArray[np.float64]:
        a, b = x[..., :half], x[..., half:]
        cos, sin = np.cos(angle), np.sin(angle)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    x = w["model.embed_tokens.weight"][tokens]
    for i in range(tiny.layers):
        name = f"model.layers.{i}"
        h = norm(x, w[f"{name}.input_layernorm.weight"])
        q, k, v = (
            (
                h @ w[f"{name}.self_attn.{part}_proj.weight"].T
                + w.get(f"{name}.self_attn.{part}_proj.bias", 0.0)
            ).reshape(len(tokens), -1, tiny.head_dim)
            for part in "qkv"
        )
        if tiny.qk_norm:
            q = norm(q, w[f"{name}.self_attn.q_norm.weight"])
            k = norm(k, w[f"{name}.self_attn.k_norm.weight"])
        q, k = rotate(q), rotate(k)
        group = tiny.heads // tiny.kv_heads
        k, v = k.repeat(group, axis=1), v.repeat(group, axis=1)
        scores = np.einsum("qhd,khd->hqk", q, k) / math.sqrt(tiny.head_dim)
        scores = np.where(np.tri(len(tokens), dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        seen = np.einsum("hqk,khd->qhd", weights, v).reshape(len(tokens), -1)
        x = x + seen @ w[f"{name}.self_attn.o_proj.weight"].T
        h = norm(x, w[f"{name}.post_attention_layernorm.weight"])
        gate = h @ w[f"{name}.mlp.gate_proj.weight"].T
        up = h @ w[f"{name}.mlp.up_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[f"{name}.mlp.down_proj.weight"].T
    head = w["model.embed_tokens.weight" if tiny.tied else "lm_head.weight"]
    logits: NDArray[np.float64] = norm(x, w["model.norm.weight"]) @ head.T
    return logits
