"""A model's weights, packed, and the records by which a step finds them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.batch import Floats
from pie.errors import ModelError
from pie.kernels.cpu.arrays import address
from pie.kernels.cpu.layout import GROUP, Kind, Packed
from pie.kernels.cpu.plan import LAYER, ROPE
from pie.kernels.cpu.rows import Form, row_bytes

from ..checkpoint import Tensors
from ..config import Activation, LlamaConfig, NormPlace, QKNorm
from .arena import Arena
from .heads import Heads

_ACTIVATIONS = {Activation.SILU: 0, Activation.GELU_TANH: 1}


@attrs.frozen(eq=False)
class PackedModel:
    """Weights in one arena. The records hold addresses of what `held` keeps alive."""

    config: LlamaConfig
    heads: Heads
    form: Form
    """Of the activation rows that its matrices take; see `pie.kernels.cpu.rows`."""
    layers: NDArray[np.void]
    ropes: NDArray[np.void]
    embedding: Packed
    head: Packed
    norm: Floats
    held: list[NDArray[Any]]

    @staticmethod
    def build(config: LlamaConfig, tensors: Tensors, floats: Kind = Kind.Q8) -> PackedModel:
        """Take every tensor; ModelError if one is missing, misshapen, left over or unpackable.

        `floats` (Q8 or BF16) is what weights become that are not quantised in the file.
        """
        heads = Heads.of(config)
        if heads.width != heads.size:
            _reorder_heads(config, heads, tensors)
        return _Builder(config, heads, tensors, tensors.arena(floats), floats).build()

    @property
    def bare_row(self) -> int:
        """Bytes of what a row keeps of q and k until they are normalised; 0: nothing waits."""
        c = self.config
        by_row = c.qk_norm is QKNorm.ROW
        return (c.heads + c.kv_heads) * self.heads.width * 4 if by_row else 0

    @property
    def apart(self) -> bool:
        """Whether what a KV head's queries have seen is not whole groups of a row by itself."""
        size, width = self.heads.size, self.heads.width
        return size != width or self.config.group * size % GROUP != 0

    def plan(self) -> dict[str, float]:
        """What a step's plan says of the model."""
        c = self.config
        sizes = {name: getattr(c, name) for name in ("layers", "hidden", "heads", "kv_heads")}
        return sizes | {
            "head_dim": self.heads.width,
            "head_size": self.heads.size,
            "apart": self.apart,
            "ffn": c.ffn,
            "vocabulary": c.vocabulary,
            "form": int(self.form),
            "hidden_row": row_bytes(self.form, c.hidden),
            "attended_row": row_bytes(self.form, c.heads * c.head_dim),
            "ffn_row": row_bytes(self.form, c.ffn),
            "bare_row": self.bare_row,
            "activation": _ACTIVATIONS[c.activation],
            "layer_records": address(self.layers),
            "ropes": len(self.ropes),
            "rope_records": address(self.ropes),
            "embedding": address(self.embedding.data),
            "embedding_kind": int(self.embedding.kind),
            "head": address(self.head.data),
            "head_kind": int(self.head.kind),
            "final_norm": address(self.norm),
            "epsilon": c.norm_epsilon,
            "head_epsilon": c.norm_epsilon * self.heads.share,
            "embedding_scale": c.embedding_scale,
            "final_cap": c.logit_cap,
            "attention_cap": c.attention_cap,
            "query_scale": c.query_scale,
        }


@attrs.define(eq=False)
class _Builder:
    _config: LlamaConfig
    _heads: Heads
    _tensors: Tensors
    _arena: Arena
    _floats: Kind
    _held: list[NDArray[Any]] = attrs.field(factory=list)
    _kinds: set[Kind] = attrs.field(factory=set)

    def build(self) -> PackedModel:
        config = self._config
        embedding = self._matrix("token_embd.weight", config.vocabulary, config.hidden)
        self._kinds.clear()  # unless it is the head, it only yields rows
        layers = np.zeros(config.layers, LAYER)
        distinct = list(dict.fromkeys(rope for rope in config.rope if rope))
        for i in range(config.layers):
            rope = config.rope[i]
            layers[i]["rope"] = -1 if rope is None else distinct.index(rope)
            layers[i]["window"] = config.windows[i]
            for name, value in self._layer(f"blk.{i}"):
                layers[i][name] = value
        norm = self._vector("output_norm.weight", config.hidden)
        head = embedding
        if not config.tied:
            head = self._matrix("output.weight", config.vocabulary, config.hidden)
        self._kinds.add(head.kind)
        self._tensors.check_all_taken()
        ropes = np.zeros(len(distinct), ROPE)
        for number, rope in enumerate(distinct):
            frequencies = np.zeros(self._heads.width // 2, np.float32)
            frequencies[: self._heads.size // 2] = rope.frequencies(self._heads.size)
            self._hold(frequencies)
            ropes[number] = (address(frequencies), rope.factor)
        if Kind.BF16 in self._kinds and len(self._kinds) > 1:
            raise ModelError("weights in bfloat16 cannot be mixed with quantised ones")
        form = Form.BF16 if Kind.BF16 in self._kinds else Form.S8
        return PackedModel(
            config, self._heads, form, layers, ropes, embedding, head, norm, self._held
        )

    def _layer(self, name: str) -> Iterator[tuple[str, int]]:
        """Fields of a layer's record."""
        c, width = self._config, self._heads.width
        q_rows, kv_rows = c.heads * width, c.kv_heads * width
        matrices = (
            ("q", "attn_q", q_rows, c.hidden),
            ("k", "attn_k", kv_rows, c.hidden),
            ("v", "attn_v", kv_rows, c.hidden),
            ("o", "attn_output", c.hidden, c.heads * c.head_dim),
            ("gate", "ffn_gate", c.ffn, c.hidden),
            ("up", "ffn_up", c.ffn, c.hidden),
            ("down", "ffn_down", c.hidden, c.ffn),
        )
        for field, part, outputs, inputs in matrices:
            packed = self._matrix(f"{name}.{part}.weight", outputs, inputs)
            yield field, address(packed.data)
            yield f"{field}_kind", int(packed.kind)
        yield from self._of_heads(name)
        vectors: list[tuple[str, str, int]] = []
        if c.norms is not NormPlace.AFTER:
            vectors += [("attention_norm", "attn_norm.weight", c.hidden)]
            vectors += [("ffn_norm", "ffn_norm.weight", c.hidden)]
        if c.norms is not NormPlace.BEFORE:
            vectors += [("attention_post_norm", "post_attention_norm.weight", c.hidden)]
            vectors += [("ffn_post_norm", "post_ffw_norm.weight", c.hidden)]
        if c.output_bias:
            vectors += [("o_bias", "attn_output.bias", c.hidden)]
        if c.ffn_bias:
            sizes = (("gate", c.ffn), ("up", c.ffn), ("down", c.hidden))
            vectors += [(f"{part}_bias", f"ffn_{part}.bias", rows) for part, rows in sizes]
        for field, part, size in vectors:
            yield field, address(self._vector(f"{name}.{part}", size))

    def _of_heads(self, name: str) -> Iterator[tuple[str, int]]:
        """Fields with vectors of q, k and v."""
        c, heads = self._config, self._heads
        counts = {"q": c.heads, "k": c.kv_heads, "v": c.kv_heads}
        if c.qkv_bias:
            for part, count in counts.items():
                bias = self._tensors.take_array(f"{name}.attn_{part}.bias", count * heads.size)
                yield f"{part}_bias", address(self._hold(heads.spread(bias)))
        if c.qk_norm is not QKNorm.NONE:
            by_row = c.qk_norm is QKNorm.ROW
            for part in ("q", "k"):
                size = (counts[part] if by_row else 1) * heads.size
                weight = self._tensors.take_array(f"{name}.attn_{part}_norm.weight", size)
                field = f"{part}_row_norm" if by_row else f"{part}_norm"
                yield field, address(self._hold(heads.spread_norm(weight)))

    def _matrix(self, name: str, outputs: int, inputs: int) -> Packed:
        packed = self._tensors.take_packed(name, outputs, inputs, self._arena, self._floats)
        self._kinds.add(packed.kind)
        self._hold(packed.data)
        return packed

    def _vector(self, name: str, size: int) -> Floats:
        values = self._tensors.take_array(name, size)
        self._hold(values)
        return values

    def _hold(self, values: NDArray[Any]) -> NDArray[Any]:
        self._held.append(values)
        return values


def _reorder_heads(config: LlamaConfig, heads: Heads, tensors: Tensors) -> None:
    """Let the matrices of q, k and v be packed with the zeros of their heads."""
    for part, count in (("q", config.heads), ("k", config.kv_heads), ("v", config.kv_heads)):
        order = heads.order(count)
        for i in range(config.layers):
            name = f"blk.{i}.attn_{part}.weight"
            tensors.reorder(name, count * heads.size, config.hidden, order)
