"""What a Hugging Face model type means: the differences of each from Llama, as data.

Facts that a config.json leaves out have the defaults of the model type's class in `transformers`;
only those that matter to the reader and differ from Llama's are here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from ..config import NormPlace, QKNorm

Facts = dict[str, Any]

LAYER_NAMES = {
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
"""Paths within a layer of Llama, and the canonical names."""

_OUTPUT_NORMS = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
"""The same path is another norm where outputs are normalised."""


def never(facts: Facts, layer: int) -> bool:
    """No layer has a sliding window, whatever config.json says of windows."""
    return False


def always(facts: Facts, layer: int) -> bool:
    """All layers have it."""
    return True


def _upper(facts: Facts, layer: int) -> bool:
    return bool(layer >= facts.get("max_window_layers", 28))


def _even(facts: Facts, layer: int) -> bool:
    return layer % 2 == 0


def _all_but_last_of_four(facts: Facts, layer: int) -> bool:
    return bool((layer + 1) % 4)


def _all_but_last_of_six(facts: Facts, layer: int) -> bool:
    return bool((layer + 1) % facts.get("sliding_window_pattern", 6))


def _without_rotation(facts: Facts, layer: int) -> bool:
    return not rotates(facts, layer)


def rotates(facts: Facts, layer: int) -> bool:
    """Whether a layer of SmolLM3 turns its queries and keys: all but every fourth do."""
    told = facts.get("no_rope_layers")
    if told is not None:
        return layer < len(told) and bool(told[layer])
    return bool((layer + 1) % facts.get("no_rope_layer_interval", 4))


@attrs.frozen(kw_only=True)
class Family:
    """A model type; the defaults are those of Llama."""

    defaults: Facts = attrs.field(factory=dict)
    names: dict[str, str] = attrs.field(factory=dict)
    """Changes to LAYER_NAMES."""
    norms: NormPlace = NormPlace.BEFORE
    qk_norm: QKNorm = QKNorm.NONE
    less_one: bool = False
    """Weights of norms are stored less one."""
    scaled_embedding: bool = False
    """Inputs are multiplied by the root of the hidden size."""
    slides: Callable[[Facts, int], bool] = never
    """Which layers have the sliding window, if `layer_types` does not say so."""
    some_do_not_rotate: bool = False
    local_rope: bool = False
    """`rope_scaling` is for layers without a sliding window, the others have a base of their own
    or the same."""


_GEMMA: Facts = {
    "tie_word_embeddings": True,
    "hidden_activation": "gelu_pytorch_tanh",
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}
_QWEN: Facts = {"use_sliding_window": False, "sliding_window": 4096}
_OLMO2 = Family(
    defaults={"rms_norm_eps": 1e-5},
    names=_OUTPUT_NORMS,
    norms=NormPlace.AFTER,
    qk_norm=QKNorm.ROW,
)

FAMILIES = {
    "llama": Family(),
    "mistral": Family(defaults={"sliding_window": 4096}, slides=always),
    "qwen2": Family(defaults=_QWEN, slides=_upper),
    "qwen3": Family(defaults={**_QWEN, "head_dim": 128}, qk_norm=QKNorm.HEAD, slides=_upper),
    "gemma2": Family(
        defaults={**_GEMMA, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        names=_OUTPUT_NORMS,
        norms=NormPlace.BOTH,
        less_one=True,
        scaled_embedding=True,
        slides=_even,
    ),
    "gemma3_text": Family(
        defaults={
            **_GEMMA,
            "rope_theta": 1e6,
            "rope_local_base_freq": 1e4,
            # What configs of the bigger ones, with their vision towers, leave out.
            "vocab_size": 262_208,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "max_position_embeddings": 131_072,
        },
        names=_OUTPUT_NORMS,
        norms=NormPlace.BOTH,
        qk_norm=QKNorm.HEAD,
        less_one=True,
        scaled_embedding=True,
        slides=_all_but_last_of_six,
        local_rope=True,
    ),
    "smollm3": Family(
        defaults={"tie_word_embeddings": True, "use_sliding_window": False, "rope_theta": 2e6},
        slides=_without_rotation,
        some_do_not_rotate=True,
    ),
    "olmo2": _OLMO2,
    "olmo3": attrs.evolve(
        _OLMO2,
        defaults={**_OLMO2.defaults, "sliding_window": 4096, "rope_theta": 5e5},
        slides=_all_but_last_of_four,
        local_rope=True,
    ),
}
"""By `model_type` in config.json."""
