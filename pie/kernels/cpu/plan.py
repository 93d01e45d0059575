"""What a step reads: records of numbers and addresses, shared by all threads.

Fields of 64 bits are counts, addresses (0: there is none) and switches. Whoever fills them in
checks every bound: compiled code checks nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from .shapes import ArrayOf, Value

MATRICES = ("q", "k", "v", "o", "gate", "up", "down")


def _record(integers: str, floats: str = "") -> np.dtype[np.void]:
    fields = [(name, np.int64) for name in integers.split()]
    return np.dtype(fields + [(name, np.float64) for name in floats.split()])


PLAN = _record(
    # The model.
    """layers hidden heads kv_heads head_dim head_size apart ffn vocabulary form activation
    hidden_row attended_row ffn_row bare_row
    layer_records ropes rope_records embedding embedding_kind head head_kind final_norm
    """
    # Memory that lives as long as the runner.
    """sync threads counters counter_words pages kv_form page_count page_bytes head_bytes
    query_bytes embeddings slots scratch scratch_bytes """
    # A batch as it comes (`prepare`): its arrays, then how many entries they have.
    """words reals tokens positions row_starts table page_starts lengths embedding_rows
    embedding_slots stored_rows stored_slots masked_rows mask_starts mask_runs sampled_rows top_k
    ranked_rows ranked_k cleared_pages cleared_slots copy_sources copy_targets
    temperature top_p min_p uniform ranked_temperature
    rows passes entries embedded stored masked runs sampled ranked cleared emptied
    copies answered """
    # This step's rows and passes.
    """met inputs row_pages row_slots factors x xq bare queries attended fq y
    tasks task_count longest masks mask_bits mask_width split partials """
    # Adapters.
    """uses use_count row_uses lora rank_stride """
    # Outputs: the hidden states kept, then the logits in chunks.
    """stored_targets marks wanted_rows wanted chunk hq logits requests starts
    finite tokens_out ids_out probabilities_out """
    # Several steps in one call (`multistep`).
    """done over halt announce following uniforms stops stop_starts going
    bell rings""",
    "epsilon head_epsilon embedding_scale final_cap attention_cap query_scale",
)
"""A step. A head has `head_dim` dimensions, a multiple of 16, of which `head_size` are the model's:
the first of each half; the others are zeros, and norms of q and k have `head_epsilon` for them.
`apart`: the heads of a row can only be quantised together. `kv_form`: a `lines.Form`. Arrays by
address:
`tokens`, `positions` int32 [rows]; `inputs` int64 [rows] (address of
a row's float32 input, or 0: its token); `row_pages`, `row_slots` int32 [rows] (where the row's K
and V go); `masks` int64 [rows] (address of a row's visible slots, a uint16 per page, or 0); `x`
float32 [rows, hidden]; `xq`, `fq`, `hq` activation rows, whose bytes are
`hidden_row`, `attended_row`, `ffn_row`; `bare` float32 [rows, q and k rows], `bare_row` bytes
apart, for models that have `q_row_norm`; `done`: 0 for a single step; `bell`: a descriptor, that
is written to at the end if `rings`; the rest is said where it is used."""

LAYER = _record(
    """attention_norm attention_post_norm ffn_norm ffn_post_norm q_norm k_norm q_row_norm
    k_row_norm q_bias k_bias v_bias o_bias gate_bias up_bias down_bias rope window """
    + " ".join(f"{name} {name}_kind" for name in MATRICES)
)
"""A layer: addresses of norms and biases (float32; `q_norm` is one of each head by itself,
`q_row_norm` of all heads of a row together), `rope` (number, or -1: none), `window` (slots,
0: all), and each matrix's address and `layout.Kind`."""

ROPE = _record("frequencies", "amplitude")
"""Inverse frequencies, float32 [head_dim / 2]."""

TASK = _record("first_row rows pages limit")
"""Neighbouring rows of one pass: `pages` is the address of its physical pages (int32), and row
first_row + i sees slots below limit + i."""

USE = _record("down up ranks")
"""What an adapter adds to one layer (0 ranks: nothing): float32 [ranks, hidden] and [q, k and v
rows, ranks]."""

REQUEST = _record("kind top_k place output", "temperature top_p min_p uniform")
"""An output of a wanted row: kind 0 is a token, at `tokens_out[place]`; 1 is a distribution of
top_k entries, from `place` on in `ids_out` and `probabilities_out`. `finite[output]` says
whether it means anything."""


@attrs.frozen(eq=False)
class _Reader:
    """For compiled functions: `count` values of `dtype` at an address as an array."""

    _dtype: np.dtype[Any]

    def called(self, unit: object, e: object, values: Sequence[Value]) -> Value:
        address, count = values
        return Value(ArrayOf(self._dtype), (*address.parts, *count.parts))


def _reader(dtype: Any) -> Any:
    return _Reader(np.dtype(dtype))


plan_at = _reader(PLAN)
layers_at = _reader(LAYER)
ropes_at = _reader(ROPE)
tasks_at = _reader(TASK)
uses_at = _reader(USE)
requests_at = _reader(REQUEST)
floats_at = _reader(np.float32)
ints_at = _reader(np.int32)
longs_at = _reader(np.int64)
bits_at = _reader(np.uint16)
bytes_at = _reader(np.uint8)
