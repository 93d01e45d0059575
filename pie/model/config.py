"""The shape of a Llama-family model, whatever file it came from."""

from __future__ import annotations

import attrs

from pie.errors import ModelError

PAGE_SIZE = 16
"""KV slots of one page."""


@attrs.frozen(kw_only=True)
class LlamaConfig:
    """Sizes and switches of the family: Llama 2/3, SmolLM2, TinyLlama, Mistral, Qwen2/2.5/3."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocabulary: int
    """Rows of the embedding matrix, padding rows included."""
    context_length: int
    rope_theta: float
    norm_epsilon: float
    tied: bool
    """The embedding matrix is also the output matrix."""
    qkv_bias: bool = False
    qk_norm: bool = False
    """Each query and key head is normalised before its rotation (Qwen3)."""

    def __attrs_post_init__(self) -> None:
        for field in attrs.fields(LlamaConfig)[:8]:
            value = getattr(self, field.name)
            if value < 1:
                raise ModelError(f"the model says {field.name} = {value}; it must be at least 1")
        if self.heads % self.kv_heads:
            raise ModelError(f"{self.heads} heads cannot share {self.kv_heads} KV heads evenly")
        if self.head_dim % 2:
            raise ModelError(f"head size {self.head_dim} is odd: rotary embeddings need pairs")

    @property
    def group(self) -> int:
        """Query heads that share one KV head."""
        return self.heads // self.kv_heads

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of K and V of one token over all layers, in float32."""
        return self.layers * 2 * self.kv_heads * self.head_dim * 4
