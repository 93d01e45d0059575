"""The Llama family: a stack of attention and feed-forward layers over a paged KV cache."""

from __future__ import annotations

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from pie.batch import Batch

from .adapter import Use
from .attention import Group, attend, plan
from .blocks import FeedForward, Linear, Rotary, aligned, rms_norm, rotate, soft_cap
from .checkpoint import Tensors
from .config import LlamaConfig, NormPlace, QKNorm
from .kv import KVCache
from .rope import Rope


@attrs.frozen(eq=False)
class Layer:
    """Weights of one layer; the products of q, k and v are one. No norm: nothing is done."""

    attention_norm: Tensor | None
    qkv: Linear
    output: Linear
    query_norm: Tensor | None
    key_norm: Tensor | None
    attention_out_norm: Tensor | None
    ffn_norm: Tensor | None
    ffn: FeedForward
    ffn_out_norm: Tensor | None


@attrs.frozen(eq=False, kw_only=True)
class Step:
    """What the layers need to know of a batch, made once."""

    rows: int
    """Real rows; the hidden states have an aligned number, of which the last mean nothing."""
    slots: Tensor
    """[rows] cache slot that each row writes."""
    rotary: dict[Rope, tuple[Tensor, Tensor]]
    """Factors of the rows for every kind of rotation."""
    groups: dict[int, list[Group]]
    """By the window of a layer."""
    adapters: list[Use]


@attrs.frozen(eq=False)
class Llama:
    """A built model."""

    config: LlamaConfig
    embedding: Tensor  # [vocabulary, hidden]
    layers: list[Layer]
    norm: Tensor
    head: Linear
    rotary: dict[Rope, Rotary]

    @staticmethod
    def build(config: LlamaConfig, tensors: Tensors) -> Llama:
        """Take every tensor; ModelError if one is missing, misshapen or left over."""
        embedding = tensors.take("token_embd.weight", config.vocabulary, config.hidden)
        layers = [_layer(config, tensors, f"blk.{i}") for i in range(config.layers)]
        norm = tensors.take("output_norm.weight", config.hidden)
        head = embedding
        if not config.tied:
            head = tensors.take("output.weight", config.vocabulary, config.hidden)
        tensors.check_all_taken()
        kinds = {rope for rope in config.rope if rope is not None}
        rotary = {rope: Rotary.build(config.head_dim, rope) for rope in kinds}
        return Llama(config, embedding, layers, norm, Linear.build(head), rotary)

    def of_layer(self, number: int) -> Llama:
        """The model that has only this layer."""
        return attrs.evolve(
            self, config=self.config.of_layers(number), layers=[self.layers[number]]
        )

    def embed(self, tokens: Tensor) -> Tensor:
        """The input of the first layer for `tokens` [n]: [n, hidden]."""
        return F.embedding(tokens, self.embedding).mul_(self.config.embedding_scale)

    def step(self, batch: Batch, cache: KVCache, slots: Tensor, adapters: list[Use]) -> Step:
        """What the layers need to know of `batch`, whose rows write `slots` [rows]."""
        positions = torch.from_numpy(batch.positions)
        return Step(
            rows=batch.rows,
            slots=slots,
            rotary={rope: rotary.at(positions) for rope, rotary in self.rotary.items()},
            groups={window: plan(batch, cache, window) for window in {*self.config.windows}},
            adapters=adapters,
        )

    def hidden(self, x: Tensor, step: Step, cache: KVCache) -> Tensor:
        """Run the stack over [aligned rows, hidden] inputs; the result is not yet normalised."""
        for number, layer in enumerate(self.layers):
            seen = self._attention(number, layer, self._norm(x, layer.attention_norm), step, cache)
            x = x + self._norm(seen, layer.attention_out_norm)
            made = layer.ffn(self._norm(x, layer.ffn_norm))
            x = x + self._norm(made, layer.ffn_out_norm)
        return x

    def final(self, x: Tensor) -> Tensor:
        """Normalised results [aligned rows, hidden] of the stack."""
        return self._norm(x, self.norm)

    def logits(self, x: Tensor) -> Tensor:
        """[aligned rows, vocabulary] of `final` hidden states."""
        return soft_cap(self.head(x), self.config.logit_cap)

    def _norm(self, x: Tensor, weight: Tensor | None) -> Tensor:
        return x if weight is None else rms_norm(x, weight, self.config.norm_epsilon)

    def _attention(
        self, number: int, layer: Layer, normed: Tensor, step: Step, cache: KVCache
    ) -> Tensor:
        config = self.config
        qkv = layer.qkv(normed)
        for use in step.adapters:
            adapt_rows(use, number, normed, qkv)
        q_size, kv_size = config.heads * config.head_dim, config.kv_heads * config.head_dim
        q, k, v = qkv.tensor_split((q_size, q_size + kv_size), dim=1)
        if config.qk_norm is QKNorm.ROW:
            q, k = self._norm(q, layer.query_norm), self._norm(k, layer.key_norm)
        q, k, v = (x[: step.rows].view(step.rows, -1, config.head_dim) for x in (q, k, v))
        if config.qk_norm is QKNorm.HEAD:
            q, k = self._norm(q, layer.query_norm), self._norm(k, layer.key_norm)
        rope = config.rope[number]
        if rope is not None:
            q, k = rotate(q, step.rotary[rope]), rotate(k, step.rotary[rope])
        cache.write(number, step.slots, k, v)
        seen = attend(q, cache, number, step.groups[config.windows[number]], config)
        return layer.output(F.pad(seen, (0, 0, 0, len(normed) - step.rows)))


def adapt_rows(use: Use, layer: int, x: Tensor, qkv: Tensor) -> None:
    """Add to `qkv` [aligned rows, q, k and v rows], in place, what an adapter makes of `x`.

    `x` [aligned rows, hidden] is the input of the layer's projections. The rows of the use are
    gathered, padded to an aligned number, and taken through two thin products.
    """
    delta = use.deltas[layer]
    if delta is None:
        return
    rows, down, up = (torch.from_numpy(part) for part in (use.rows, delta.down, delta.up))
    picked = F.pad(x[rows], (0, 0, 0, aligned(len(rows)) - len(rows)))
    added = F.linear(F.linear(picked, down), up)
    qkv.index_add_(0, rows, added[: len(rows)])


def _layer(config: LlamaConfig, tensors: Tensors, name: str) -> Layer:
    hidden, ffn, dim = config.hidden, config.ffn, config.head_dim
    q_rows, kv_rows = config.heads * dim, config.kv_heads * dim

    def linear(inputs: int, parts: dict[str, int], *, biased: bool) -> Linear:
        """The product of parts that have the same inputs, by their outputs."""
        weights = [tensors.take(f"{name}.{p}.weight", rows, inputs) for p, rows in parts.items()]
        if not biased:
            return Linear.build(torch.cat(weights))
        bias = [tensors.take(f"{name}.{part}.bias", rows) for part, rows in parts.items()]
        return Linear.build(torch.cat(weights), torch.cat(bias))

    def norm(part: str, size: int, *, here: bool) -> Tensor | None:
        return tensors.take(f"{name}.{part}.weight", size) if here else None

    before, after = config.norms is not NormPlace.AFTER, config.norms is not NormPlace.BEFORE
    by_row, some = config.qk_norm is QKNorm.ROW, config.qk_norm is not QKNorm.NONE
    return Layer(
        attention_norm=norm("attn_norm", hidden, here=before),
        qkv=linear(
            hidden, {"attn_q": q_rows, "attn_k": kv_rows, "attn_v": kv_rows}, biased=config.qkv_bias
        ),
        output=linear(q_rows, {"attn_output": hidden}, biased=config.output_bias),
        query_norm=norm("attn_q_norm", q_rows if by_row else dim, here=some),
        key_norm=norm("attn_k_norm", kv_rows if by_row else dim, here=some),
        attention_out_norm=norm("post_attention_norm", hidden, here=after),
        ffn_norm=norm("ffn_norm", hidden, here=before),
        ffn=FeedForward(
            linear(hidden, {"ffn_gate": ffn, "ffn_up": ffn}, biased=config.ffn_bias),
            linear(ffn, {"ffn_down": hidden}, biased=config.ffn_bias),
            config.activation,
        ),
        ffn_out_norm=norm("post_ffw_norm", hidden, here=after),
    )
