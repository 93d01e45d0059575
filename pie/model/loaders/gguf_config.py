"""From the metadata of a GGUF file to the shape of the model."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import attrs

from pie.errors import ModelError

from .. import rope as scaling
from ..config import LlamaConfig
from ..rope import Rope
from .gguf_families import GGUFFamily
from .gguf_file import GGUFFile

T = TypeVar("T")


@attrs.frozen
class Facts:
    """Metadata with types checked; keys that start with a dot are of the architecture."""

    file: GGUFFile
    architecture: str = ""

    def optional(self, key: str, kind: type[T], default: T) -> T:
        return self.take(key, kind) if self._full(key) in self.file.metadata else default

    def take(self, key: str, kind: type[T]) -> T:
        key = self._full(key)
        if key not in self.file.metadata:
            raise ModelError(f"{self.file.path}: metadata {key} is missing")
        value: Any = self.file.metadata[key]
        if kind is float and isinstance(value, int):
            value = float(value)
        if not isinstance(value, kind):
            raise ModelError(f"{self.file.path}: metadata {key} is not of type {kind.__name__}")
        return value

    def _full(self, key: str) -> str:
        return self.architecture + key if key.startswith(".") else key


def gguf_config(facts: Facts, family: GGUFFamily) -> LlamaConfig:
    """The config that a file's metadata and tensors tell."""
    path, tensors = facts.file.path, facts.file.tensors
    heads, hidden = facts.take(".attention.head_count", int), facts.take(".embedding_length", int)
    layers = facts.take(".block_count", int)
    head_dim = facts.optional(".attention.key_length", int, hidden // max(heads, 1))
    for key in (".attention.value_length", ".rope.dimension_count"):
        size = facts.optional(key, int, head_dim)
        if size != head_dim:
            raise ModelError(f"{path}: {key[1:]} {size} differs from the head size {head_dim}")
    if facts.optional(".expert_count", int, 0):
        raise ModelError(f"{path}: mixtures of experts are not supported")
    if "token_embd.weight" not in tensors:
        raise ModelError(f"{path}: tensor token_embd.weight is missing")
    window = facts.optional(".attention.sliding_window", int, family.window)
    slides = _sliding(facts, family, layers) if window else [False] * layers
    ropes = [_rope(facts, family, head_dim, local=local) for local in (False, True)]
    context = facts.take(".context_length", int)
    query_size = family.query_size(layers, hidden, max(heads, 1), head_dim)
    return LlamaConfig(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=facts.optional(".attention.head_count_kv", int, heads),
        head_dim=head_dim,
        ffn=facts.take(".feed_forward_length", int),
        vocabulary=tensors["token_embd.weight"].shape[0],
        context_length=max(context, _stretched_context(facts)),
        norm_epsilon=facts.take(".attention.layer_norm_rms_epsilon", float),
        tied="output.weight" not in tensors,
        qkv_bias="blk.0.attn_q.bias" in tensors,
        output_bias="blk.0.attn_output.bias" in tensors,
        ffn_bias="blk.0.ffn_gate.bias" in tensors,
        qk_norm=family.qk_norm,
        norms=family.norms,
        activation=family.activation,
        rope=tuple(
            ropes[slide] if family.rotates(layer) else None for layer, slide in enumerate(slides)
        ),
        windows=tuple(window if slide else 0 for slide in slides),
        query_scale=facts.optional(".attention.scale", float, 0.0)
        or 1.0 / math.sqrt(max(query_size, 1)),
        attention_cap=facts.optional(".attn_logit_softcapping", float, family.attention_cap),
        logit_cap=facts.optional(".final_logit_softcapping", float, family.logit_cap),
        embedding_scale=math.sqrt(hidden) if family.scaled_embedding else 1.0,
    )


def _sliding(facts: Facts, family: GGUFFamily, layers: int) -> list[bool]:
    """Which layers have the sliding window; the pattern is a period or told layer by layer."""
    key = ".attention.sliding_window_pattern"
    told = facts.optional(key, object, family.period)
    if isinstance(told, list):
        if len(told) != layers:
            raise ModelError(f"{facts.file.path}: {key[1:]} tells of {len(told)} layers")
        return [bool(slide) for slide in told]
    return [
        family.slides(layer, facts.optional(key, int, family.period)) for layer in range(layers)
    ]


def _rope(facts: Facts, family: GGUFFamily, head_dim: int, *, local: bool) -> Rope:
    """The rotation of layers without, or with (`local`), a sliding window."""
    theta = facts.optional(".rope.freq_base", float, 10000.0)
    if local:
        theta = facts.optional(".rope.freq_base_swa", float, family.local_theta or theta)
        if family.local_unscaled:
            return Rope(theta=theta)
    kind = facts.optional(".rope.scaling.type", str, "linear")
    factor = facts.optional(".rope.scaling.factor", float, 0.0) or 1.0
    pairs = head_dim // 2
    if kind == "yarn":
        divisors = scaling.yarn(
            pairs,
            theta,
            factor=factor,
            context=_original_context(facts),
            fast=facts.optional(".rope.scaling.yarn_beta_fast", float, 32.0),
            slow=facts.optional(".rope.scaling.yarn_beta_slow", float, 1.0),
        )
        sharper = facts.optional(".rope.scaling.attn_factor", float, 1.0)
        sharper *= facts.optional(
            ".rope.scaling.yarn_attn_factor", float, scaling.yarn_factor(factor)
        )
        return Rope(theta=theta, divisors=divisors, factor=sharper)
    if kind not in ("none", "linear"):
        raise ModelError(f"{facts.file.path}: rope scaling {kind!r} is not supported")
    if kind == "none":
        factor = 1.0
    stored = facts.file.tensors.get("rope_freqs.weight")  # Llama 3's divisors
    if stored is not None:
        return Rope(theta=theta, divisors=tuple((stored.float32() * factor).tolist()))
    return Rope(theta=theta, divisors=scaling.linear(pairs, factor) if factor != 1.0 else ())


def _original_context(facts: Facts) -> int:
    length = facts.take(".context_length", int)
    return facts.optional(".rope.scaling.original_context_length", int, length)


def _stretched_context(facts: Facts) -> int:
    """The context that YaRN gives, which files tell in two numbers."""
    if facts.optional(".rope.scaling.type", str, "linear") != "yarn":
        return 0
    return int(_original_context(facts) * facts.optional(".rope.scaling.factor", float, 1.0))
