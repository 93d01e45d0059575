"""The Llama family: a stack of attention and feed-forward layers over a paged KV cache."""

from __future__ import annotations

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from .adapter import Use
from .attention import Group, attend
from .blocks import FeedForward, Linear, Rotary, rms_norm, rotate
from .checkpoint import Tensors
from .config import LlamaConfig
from .kv import KVCache


@attrs.frozen(eq=False)
class Layer:
    """Weights of one layer; the products of q, k and v are one."""

    attention_norm: Tensor
    qkv: Linear
    output: Linear
    query_norm: Tensor | None
    key_norm: Tensor | None
    ffn_norm: Tensor
    ffn: FeedForward


@attrs.frozen(eq=False, kw_only=True)
class Step:
    """What the layers need to know of a batch, made once."""

    rows: int
    """Real rows; the hidden states have an aligned number, of which the last mean nothing."""
    slots: Tensor
    """[rows] cache slot that each row writes."""
    rotary: tuple[Tensor, Tensor]
    groups: list[Group]
    adapters: list[Use]


@attrs.frozen(eq=False)
class Llama:
    """A built model."""

    config: LlamaConfig
    embedding: Tensor  # [vocabulary, hidden]
    layers: list[Layer]
    norm: Tensor
    head: Linear
    rotary: Rotary

    @staticmethod
    def build(config: LlamaConfig, tensors: Tensors) -> Llama:
        """Take every tensor; ModelError if one is missing, misshapen or left over."""
        embedding = tensors.take("token_embd.weight", config.vocabulary, config.hidden)
        layers = [_layer(config, tensors, f"blk.{i}") for i in range(config.layers)]
        norm = tensors.take("output_norm.weight", config.hidden)
        head = embedding
        if not config.tied:
            head = tensors.take("output.weight", config.vocabulary, config.hidden)
        divisors = None
        if "rope_freqs.weight" in tensors:
            divisors = tensors.take("rope_freqs.weight", config.head_dim // 2)
        tensors.check_all_taken()
        rotary = Rotary.build(config.head_dim, config.rope_theta, divisors)
        return Llama(config, embedding, layers, norm, Linear.build(head), rotary)

    def hidden(self, x: Tensor, step: Step, cache: KVCache) -> Tensor:
        """Run the stack over [aligned rows, hidden] inputs; the result is not yet normalised."""
        for number, layer in enumerate(self.layers):
            x = x + self._attention(number, layer, x, step, cache)
            x = x + layer.ffn(rms_norm(x, layer.ffn_norm, self.config.norm_epsilon))
        return x

    def _attention(
        self, number: int, layer: Layer, x: Tensor, step: Step, cache: KVCache
    ) -> Tensor:
        config = self.config
        normed = rms_norm(x, layer.attention_norm, config.norm_epsilon)
        qkv = layer.qkv(normed)
        for use in step.adapters:
            use.add(number, normed, qkv)
        heads = qkv[: step.rows].view(step.rows, -1, config.head_dim)
        q, k, v = heads.tensor_split((config.heads, config.heads + config.kv_heads), dim=1)
        if layer.query_norm is not None and layer.key_norm is not None:
            q = rms_norm(q, layer.query_norm, config.norm_epsilon)
            k = rms_norm(k, layer.key_norm, config.norm_epsilon)
        q, k = rotate(q, step.rotary), rotate(k, step.rotary)
        cache.write(number, step.slots, k, v)
        seen = attend(q, cache, number, step.groups, config)
        return layer.output(F.pad(seen, (0, 0, 0, len(x) - step.rows)))


def _layer(config: LlamaConfig, tensors: Tensors, name: str) -> Layer:
    hidden, ffn, dim = config.hidden, config.ffn, config.head_dim
    q_rows, kv_rows = config.heads * dim, config.kv_heads * dim
    sizes = (("attn_q", q_rows), ("attn_k", kv_rows), ("attn_v", kv_rows))
    weights = [tensors.take(f"{name}.{part}.weight", rows, hidden) for part, rows in sizes]
    bias = None
    if config.qkv_bias:
        bias = torch.cat([tensors.take(f"{name}.{part}.bias", rows) for part, rows in sizes])
    gate_up = [tensors.take(f"{name}.ffn_{part}.weight", ffn, hidden) for part in ("gate", "up")]
    qk_norm = config.qk_norm
    return Layer(
        attention_norm=tensors.take(f"{name}.attn_norm.weight", hidden),
        qkv=Linear.build(torch.cat(weights), bias),
        output=Linear.build(tensors.take(f"{name}.attn_output.weight", hidden, q_rows)),
        query_norm=tensors.take(f"{name}.attn_q_norm.weight", dim) if qk_norm else None,
        key_norm=tensors.take(f"{name}.attn_k_norm.weight", dim) if qk_norm else None,
        ffn_norm=tensors.take(f"{name}.ffn_norm.weight", hidden),
        ffn=FeedForward(
            Linear.build(torch.cat(gate_up)),
            Linear.build(tensors.take(f"{name}.ffn_down.weight", hidden, ffn)),
        ),
    )
