"""From config.json to the shape of the model."""

from __future__ import annotations

import math
from collections.abc import Container
from pathlib import Path

import attrs

from pie.errors import ModelError

from .. import rope as scaling
from ..config import Activation, LlamaConfig
from ..rope import Rope
from .families import Facts, Family, always, never, rotates

_ACTIVATIONS = {"silu": Activation.SILU, "gelu_pytorch_tanh": Activation.GELU_TANH}


def hf_config(facts: Facts, family: Family, tensors: Container[str], path: Path) -> LlamaConfig:
    """The config that `facts` of `path` tell; `tensors`: canonical names of those there are."""
    facts = {**family.defaults, **facts}

    def number(key: str) -> int:
        if not isinstance(facts.get(key), int):
            raise ModelError(f"{path}: {key} is missing or not a whole number")
        return int(facts[key])

    if facts.get("use_bidirectional_attention"):
        raise ModelError(f"{path}: attention to later tokens is not supported")
    activation = facts.get("hidden_activation") or facts.get("hidden_act") or "silu"
    if activation not in _ACTIVATIONS:
        raise ModelError(f"{path}: activation {activation!r} is not supported")
    layers, heads, hidden = (
        number(key) for key in ("num_hidden_layers", "num_attention_heads", "hidden_size")
    )
    head_dim = facts.get("head_dim") or hidden // max(heads, 1)
    slides = _sliding(facts, family, layers, path)
    ropes = _Ropes(facts, family.local_rope, head_dim, path)
    context = number("max_position_embeddings")
    return LlamaConfig(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=facts.get("num_key_value_heads") or heads,
        head_dim=head_dim,
        ffn=number("intermediate_size"),
        vocabulary=number("vocab_size"),
        context_length=max(context, ropes.stretched_context()),
        norm_epsilon=float(facts.get("rms_norm_eps", 1e-6)),
        tied=bool(facts.get("tie_word_embeddings", False)),
        qkv_bias="blk.0.attn_q.bias" in tensors,
        output_bias="blk.0.attn_output.bias" in tensors,
        ffn_bias="blk.0.ffn_gate.bias" in tensors,
        qk_norm=family.qk_norm,
        norms=family.norms,
        activation=_ACTIVATIONS[activation],
        rope=tuple(
            None if family.some_do_not_rotate and not rotates(facts, layer) else ropes.of(slide)
            for layer, slide in enumerate(slides)
        ),
        windows=tuple(number("sliding_window") if slide else 0 for slide in slides),
        query_scale=1.0 / math.sqrt(facts.get("query_pre_attn_scalar") or max(head_dim, 1)),
        attention_cap=float(facts.get("attn_logit_softcapping") or 0.0),
        logit_cap=float(facts.get("final_logit_softcapping") or 0.0),
        embedding_scale=math.sqrt(hidden) if family.scaled_embedding else 1.0,
    )


def _sliding(facts: Facts, family: Family, layers: int, path: Path) -> list[bool]:
    """Which layers have a sliding window."""
    if not facts.get("sliding_window") or not facts.get("use_sliding_window", True):
        return [False] * layers
    by_pattern = [family.slides(facts, layer) for layer in range(layers)]
    told = facts.get("layer_types")
    if told is None or family.slides in (never, always):
        return by_pattern
    known = {"sliding_attention": True, "full_attention": False}
    if len(told) != layers or not {*told} <= known.keys():
        raise ModelError(f"{path}: layer_types does not name {layers} kinds of attention we know")
    return [known[kind] for kind in told]


@attrs.frozen
class _Ropes:
    """The rotary settings, in any of the forms that config.json has had."""

    facts: Facts
    local: bool
    """Layers with a sliding window have a rotation of their own."""
    head_dim: int
    path: Path

    def of(self, slides: bool) -> Rope:
        """The rotation of layers with or without a sliding window."""
        said = self._settings(slides)
        theta = said.get("rope_theta")
        if theta is None:
            local = self.facts.get("rope_local_base_freq") if slides else None
            theta = local or self.facts.get("rope_theta") or 10000.0
        kind = said.get("rope_type") or said.get("type") or "default"
        part = said.get("partial_rotary_factor") or self.facts.get("partial_rotary_factor") or 1.0
        if part != 1.0:
            raise ModelError(f"{self.path}: heads that are turned in part are not supported")
        try:
            return self._scaled(kind, said, float(theta))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{self.path}: rope scaling {kind!r} lacks a number ({error})"
            ) from None

    def stretched_context(self) -> int:
        """The context that YaRN gives, which configs tell in two numbers."""
        said = self._settings(False)
        if (said.get("rope_type") or said.get("type")) != "yarn" or not said.get("factor"):
            return 0
        return int(self._original_context(said) * float(said["factor"]))

    def _settings(self, slides: bool) -> Facts:
        said = self.facts.get("rope_parameters")
        kinds = ("full_attention", "sliding_attention")
        if said and any(kind in said for kind in kinds):
            return said.get(kinds[slides]) or {}
        if slides and self.local:
            return {}
        return self.facts.get("rope_scaling") or said or {}

    def _original_context(self, said: Facts) -> float:
        return float(
            said.get("original_max_position_embeddings")
            or self.facts.get("original_max_position_embeddings")
            or self.facts["max_position_embeddings"]
        )

    def _scaled(self, kind: str, said: Facts, theta: float) -> Rope:
        pairs = self.head_dim // 2
        match kind:
            # NTK-aware scaling by the length of the sequence starts beyond the model's context.
            case "default" | "dynamic":
                return Rope(theta=theta)
            case "linear":
                return Rope(theta=theta, divisors=scaling.linear(pairs, float(said["factor"])))
            case "llama3":
                divisors = scaling.llama3(
                    pairs,
                    theta,
                    factor=float(said["factor"]),
                    low=float(said["low_freq_factor"]),
                    high=float(said["high_freq_factor"]),
                    context=self._original_context(said),
                )
                return Rope(theta=theta, divisors=divisors)
            case "yarn":
                return self._yarn(said, theta)
        raise ModelError(f"{self.path}: rope scaling {kind!r} is not supported")

    def _yarn(self, said: Facts, theta: float) -> Rope:
        context = self._original_context(said)
        factor = said.get("factor") or self.facts["max_position_embeddings"] / context
        sharper = said.get("attention_factor")
        if sharper is None:
            over, under = said.get("mscale"), said.get("mscale_all_dim")
            sharper = scaling.yarn_factor(factor)
            if over and under:
                sharper = scaling.yarn_factor(factor, over) / scaling.yarn_factor(factor, under)
        divisors = scaling.yarn(
            self.head_dim // 2,
            theta,
            factor=float(factor),
            context=context,
            fast=float(said.get("beta_fast") or 32.0),
            slow=float(said.get("beta_slow") or 1.0),
            whole=bool(said.get("truncate", True)),
        )
        return Rope(theta=theta, divisors=divisors, factor=float(sharper))
