"""The sizes of real models, from which a simulated machine knows what a step moves and computes.

Presets are the published `config.json` of each model; parameters are counted, not stated.
"""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class ModelShape:
    """A decoder of the Llama family: grouped-query attention and a gated MLP."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    context_length: int
    tied: bool = False
    """Whether the output head is the embedding matrix."""
    weight_bytes_each: float = 2
    """Bytes of one weight: 2 is bf16, 1 is fp8."""
    kv_bytes_each: float = 2
    """Bytes of one element of K or V."""

    @property
    def layer_parameters(self) -> int:
        """Weights of one layer: q, k, v, o, the three matrices of the MLP, two norms."""
        attention = 2 * self.hidden * (self.heads + self.kv_heads) * self.head_dim
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def head_parameters(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        tables = self.head_parameters * (1 if self.tied else 2)
        return self.layers * self.layer_parameters + tables + self.hidden

    @property
    def weight_bytes(self) -> float:
        """What the model takes in memory."""
        return self.parameters * self.weight_bytes_each

    @property
    def step_weight_bytes(self) -> float:
        """What a step reads of it: all layers and the head, but of an embedding table next to
        nothing."""
        read = self.layers * self.layer_parameters + self.hidden + self.head_parameters
        return read * self.weight_bytes_each

    @property
    def kv_bytes_per_token(self) -> float:
        return 2 * self.layers * self.kv_heads * self.head_dim * self.kv_bytes_each

    @property
    def flops_per_row(self) -> float:
        """Of the layers' matrix products: a multiplication and an addition per weight."""
        return 2.0 * self.layers * (self.layer_parameters - 2 * self.hidden)

    @property
    def flops_per_output(self) -> float:
        """Of the output head, for a row whose logits are wanted."""
        return 2.0 * self.head_parameters

    @property
    def flops_per_slot(self) -> float:
        """Of attention, per row and slot that it sees: one product with K, one with V."""
        return 4.0 * self.layers * self.heads * self.head_dim


LLAMA_3_8B = ModelShape(
    name="llama-3-8b",
    layers=32,
    hidden=4096,
    heads=32,
    kv_heads=8,
    head_dim=128,
    intermediate=14336,
    vocabulary=128256,
    context_length=8192,
)
"""Llama 3 8B in bf16."""

LLAMA_3_70B = ModelShape(
    name="llama-3-70b",
    layers=80,
    hidden=8192,
    heads=64,
    kv_heads=8,
    head_dim=128,
    intermediate=28672,
    vocabulary=128256,
    context_length=8192,
)
"""Llama 3 70B in bf16: more than one accelerator of today holds."""

LLAMA_3_70B_FP8 = attrs.evolve(LLAMA_3_70B, name="llama-3-70b-fp8", weight_bytes_each=1)
"""Its weights in fp8, its KV cache in bf16."""

SMOLLM2_135M = ModelShape(
    name="smollm2-135m",
    layers=30,
    hidden=576,
    heads=9,
    kv_heads=3,
    head_dim=64,
    intermediate=1536,
    vocabulary=49152,
    context_length=8192,
    tied=True,
)
"""SmolLM2-135M in bf16."""
