"""The shape of a Llama-family model, whatever file it came from."""

from __future__ import annotations

import math
from enum import StrEnum

import attrs

from pie.errors import ModelError
from pie.kernels.cpu import layout

from .rope import Rope

PAGE_SIZE = layout.PAGE_SIZE
"""KV slots of one page, on either path."""


class QKNorm(StrEnum):
    """What is normalised of queries and keys before their rotation."""

    NONE = ""
    HEAD = "head"
    """Each head for itself, all with the same weights (Qwen3, Gemma 3)."""
    ROW = "row"
    """All query heads of a row together, and all its key heads (OLMo 2)."""


class NormPlace(StrEnum):
    """Where a layer normalises what goes into and comes out of attention and feed-forward."""

    BEFORE = "before"
    BOTH = "both"
    """Inputs and outputs (Gemma 2 and 3)."""
    AFTER = "after"
    """Outputs only (OLMo 2)."""


class Activation(StrEnum):
    """What the gate of the feed-forward block goes through."""

    SILU = "silu"
    GELU_TANH = "gelu-tanh"
    """GELU by its tanh formula (Gemma)."""


@attrs.frozen(kw_only=True)
class LlamaConfig:
    """Sizes and switches of the family; the defaults are those of Llama 2."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocabulary: int
    """Rows of the embedding matrix, padding rows included."""
    context_length: int
    norm_epsilon: float
    tied: bool
    """The embedding matrix is also the output matrix."""
    qkv_bias: bool = False
    output_bias: bool = False
    """The product after attention has a bias."""
    ffn_bias: bool = False
    """The three products of the feed-forward block have biases."""
    qk_norm: QKNorm = QKNorm.NONE
    norms: NormPlace = NormPlace.BEFORE
    activation: Activation = Activation.SILU
    rope: tuple[Rope | None, ...] = attrs.field()
    """The rotation in each layer; None: queries and keys are not turned (SmolLM3)."""
    windows: tuple[int, ...] = attrs.field()
    """How many slots each layer sees, a row's own among them; 0: all."""
    query_scale: float = attrs.field()
    """Queries are multiplied by it."""
    attention_cap: float = 0.0
    """Attention scores s become `cap * tanh(s / cap)`; 0: they stay."""
    logit_cap: float = 0.0
    """Logits l become `cap * tanh(l / cap)`; 0: they stay."""
    embedding_scale: float = 1.0
    """Rows of the embedding matrix are multiplied by it when they are a layer's input."""

    @rope.default
    def _plain_rope(self) -> tuple[Rope | None, ...]:
        return (Rope(),) * self.layers

    @windows.default
    def _no_windows(self) -> tuple[int, ...]:
        return (0,) * self.layers

    @query_scale.default
    def _by_head_size(self) -> float:
        return 1.0 / math.sqrt(max(self.head_dim, 1))

    def __attrs_post_init__(self) -> None:
        for field in attrs.fields(LlamaConfig)[:8]:
            value = getattr(self, field.name)
            if value < 1:
                raise ModelError(f"the model says {field.name} = {value}; it must be at least 1")
        if self.heads % self.kv_heads:
            raise ModelError(f"{self.heads} heads cannot share {self.kv_heads} KV heads evenly")
        if self.head_dim % 2:
            raise ModelError(f"head size {self.head_dim} is odd: rotary embeddings need pairs")
        for name, per_layer in (("rope", self.rope), ("windows", self.windows)):
            if len(per_layer) != self.layers:
                raise ModelError(
                    f"{name} tells of {len(per_layer)} layers, the model has {self.layers}"
                )
        if min(self.windows) < 0:
            raise ModelError(f"the model says a window of {min(self.windows)} slots")
        for rope in self.rope:
            if rope and rope.divisors and len(rope.divisors) != self.head_dim // 2:
                raise ModelError(
                    f"{len(rope.divisors)} rotary divisors for {self.head_dim // 2} pairs"
                )

    @property
    def group(self) -> int:
        """Query heads that share one KV head."""
        return self.heads // self.kv_heads

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of K and V of one token over all layers, in float32."""
        return self.layers * 2 * self.kv_heads * self.head_dim * 4

    def of_layers(self, *chosen: int) -> LlamaConfig:
        """The config of a model of these layers of this one."""
        return attrs.evolve(
            self,
            layers=len(chosen),
            rope=tuple(self.rope[i] for i in chosen),
            windows=tuple(self.windows[i] for i in chosen),
        )
