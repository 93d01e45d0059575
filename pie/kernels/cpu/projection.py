"""q, k and v of a layer, from its input to where attention finds them."""

from __future__ import annotations

from typing import Any

from .jit import compiled, staged
from .layout import BLOCK
from .lines import Form
from .lora import lora_add
from .matmul import gemm
from .pages import store_key, store_value
from .pages8 import store_key8, store_query8, store_value8
from .phases import ROWS, add, block_size, claim
from .plan import ints_at, layers_at, plan_at, uses_at
from .rope import head_norm, store_query
from .rows import norm

_INT8 = int(Form.INT8)


@compiled
def adapt_head(p: Any, index: int, row: int, head: int, out: int) -> None:
    """Add what the row's adapter makes of its input to one head."""
    number = ints_at(p.row_uses, p.rows)[row]
    if number < 0:
        return
    use = uses_at(p.uses, p.use_count * p.layers)[number * p.layers + index]
    if use.ranks > 0:
        inner = p.lora + row * p.rank_stride * 4
        lora_add(inner, use.up, use.ranks, head * p.head_dim, p.head_dim, out)


@compiled
def store_head(p: Any, index: int, layer: Any, head: int, row: int, values: int) -> None:
    """A head of a row to where attention finds it; they count q, then k, then v."""
    factors = 0
    if layer.rope >= 0:
        factors = p.factors + (row * p.ropes + layer.rope) * p.head_dim * 4
    if head < p.heads:
        if layer.q_norm != 0:
            head_norm(values, layer.q_norm, values, p.head_dim, p.head_epsilon)
        out = p.queries + (row * p.heads + head) * p.query_bytes
        if p.kv_form == _INT8:
            store_query8(values, factors, out, p.head_dim, p.query_scale)
        else:
            store_query(values, factors, out, p.head_dim, p.query_scale)
        return
    page = p.pages + ints_at(p.row_pages, p.rows)[row] * p.page_bytes
    page += (index * p.kv_heads + (head - p.heads) % p.kv_heads) * p.head_bytes
    slot = ints_at(p.row_slots, p.rows)[row]
    if head >= p.heads + p.kv_heads:
        if p.kv_form == _INT8:
            store_value8(values, page, slot, p.head_dim)
        else:
            store_value(values, page, slot, p.head_dim)
        return
    if layer.k_norm != 0:
        head_norm(values, layer.k_norm, values, p.head_dim, p.head_epsilon)
    if p.kv_form == _INT8:
        store_key8(values, factors, page, slot, p.head_dim)
    else:
        store_key(values, factors, page, slot, p.head_dim)


@compiled
def project_head(
    thread: int, p: Any, index: int, layer: Any, head: int, first: int, rows: int
) -> None:
    """One head of some rows: stored, or kept in `bare` until its whole rows can be normalised."""
    waits = layer.q_row_norm != 0 and head < p.heads + p.kv_heads
    if waits:
        stride = p.bare_row
        out = p.bare + first * stride + head * p.head_dim * 4
    else:
        stride = p.head_dim * 4
        out = p.scratch + thread * p.scratch_bytes
    if head < p.heads:
        own, weights, kind, bias = head, layer.q, layer.q_kind, layer.q_bias
    elif head < p.heads + p.kv_heads:
        own, weights, kind, bias = head - p.heads, layer.k, layer.k_kind, layer.k_bias
    else:
        own = head - p.heads - p.kv_heads
        weights, kind, bias = layer.v, layer.v_kind, layer.v_bias
    blocks = p.head_dim // BLOCK
    weights += own * blocks * block_size(kind, p.hidden)
    x = p.xq + first * p.hidden_row
    gemm(kind, weights, blocks, x, p.hidden, rows, out, stride, 0)
    for i in range(rows):
        values = out + i * stride
        if bias != 0:
            add(bias + own * p.head_dim * 4, values, p.head_dim)
        if p.use_count > 0:
            adapt_head(p, index, first + i, head, values)
        if not waits:
            store_head(p, index, layer, head, first + i, values)


@staged
def project(thread: int, plan: int, index: int, phase: int) -> None:
    """q, k and v: an item is one head of up to ROWS rows, rotated and stored on the spot."""
    p = plan_at(plan, 1)[0]
    layer = layers_at(p.layer_records, p.layers)[index]
    heads = p.heads + 2 * p.kv_heads
    parts = -(-p.rows // ROWS)
    while True:
        item = claim(p, phase)
        if item >= heads * parts:
            break
        head, first = item // parts, item % parts * ROWS
        project_head(thread, p, index, layer, head, first, min(ROWS, p.rows - first))


@staged
def normalise_heads(thread: int, plan: int, index: int) -> None:
    """The q and k that wait in `bare`: each normalised as one row, then rotated and stored."""
    p = plan_at(plan, 1)[0]
    layer = layers_at(p.layer_records, p.layers)[index]
    width, q_size, k_size = p.head_dim * 4, p.heads * p.head_dim, p.kv_heads * p.head_dim
    for r in range(thread, p.rows, p.threads):
        q = p.bare + r * p.bare_row
        k = q + q_size * 4
        norm(q, layer.q_row_norm, q, q_size, p.head_epsilon)
        norm(k, layer.k_row_norm, k, k_size, p.head_epsilon)
        for head in range(p.heads + p.kv_heads):
            store_head(p, index, layer, head, r, q + head * width)
