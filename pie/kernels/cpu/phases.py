"""The parts of a layer, each run by all threads at once.

Work is cut into items that threads claim one by one from a counter of the phase, so that a
processor that is disturbed takes fewer. No item writes what another item of its phase reads.
"""

from __future__ import annotations

from typing import Any

from .jit import compiled, staged
from .layout import BLOCK, GROUP, GROUP_BYTES, Kind
from .lora import lora_down
from .matmul import gemm
from .plan import (
    floats_at,
    ints_at,
    layers_at,
    longs_at,
    plan_at,
    ropes_at,
    uses_at,
)
from .rope import rope_factors
from .rows import embed, gate_quantise, norm, norm_quantise, quantise
from .threads import atomic_add

ROWS = 32
"""Rows of an item: their activations and results stay in the nearest caches."""

COLUMN_BLOCKS = 2
"""Blocks of outputs of an item of `product`."""

LINE = 64
"""Bytes between two counters."""

_BYTES = (GROUP_BYTES[Kind.Q4], GROUP_BYTES[Kind.Q8], GROUP_BYTES[Kind.Q8M], GROUP_BYTES[Kind.BF16])


@compiled
def claim(p: Any, phase: int) -> int:
    """The next item of a phase."""
    return int(atomic_add(p.counters + phase * LINE, 1))


@compiled
def block_size(kind: int, inputs: int) -> int:
    """Bytes of a block of 16 outputs."""
    if kind == 0:
        return inputs // GROUP * _BYTES[0]
    if kind == 1:
        return inputs // GROUP * _BYTES[1]
    if kind == 2:
        return inputs // GROUP * _BYTES[2]
    return inputs // GROUP * _BYTES[3]


@staged
def read_inputs(thread: int, plan: int) -> None:
    """The rows' inputs into `x`, and their rotary factors."""
    p = plan_at(plan, 1)[0]
    tokens, inputs = ints_at(p.tokens, p.rows), longs_at(p.inputs, p.rows)
    positions = ints_at(p.positions, p.rows)
    ropes = ropes_at(p.rope_records, p.ropes)
    width = p.head_dim * 4
    for r in range(thread, p.rows, p.threads):
        x = p.x + r * p.hidden * 4
        if inputs[r] == 0:
            embed(p.embedding_kind, p.embedding, p.hidden, tokens[r], x, p.embedding_scale)
        else:
            source, target = floats_at(inputs[r], p.hidden), floats_at(x, p.hidden)
            for i in range(p.hidden):
                target[i] = source[i]
        for kind in range(p.ropes):
            out = p.factors + (r * p.ropes + kind) * width
            rope = ropes[kind]
            rope_factors(positions[r], rope.frequencies, p.head_dim // 2, rope.amplitude, out)


@staged
def normalise(thread: int, plan: int, weight: int) -> None:
    """`xq` of `x`: normalised by `weight`, or (0) as it is."""
    p = plan_at(plan, 1)[0]
    for r in range(thread, p.rows, p.threads):
        x, row = p.x + r * p.hidden * 4, p.xq + r * p.hidden_row
        if weight == 0:
            quantise(p.form, x, row, p.hidden, 0, p.hidden // GROUP)
        else:
            norm_quantise(p.form, x, weight, row, p.hidden, p.epsilon)


@compiled
def add(source: int, target: int, count: int) -> None:
    """target[count] += source[count], both float32."""
    values, sums = floats_at(source, count), floats_at(target, count)
    for i in range(count):
        sums[i] += values[i]


@staged
def add_normalised(thread: int, plan: int, weight: int) -> None:
    """`x` += `y` normalised by `weight`."""
    p = plan_at(plan, 1)[0]
    for r in range(thread, p.rows, p.threads):
        y = p.y + r * p.hidden * 4
        norm(y, weight, y, p.hidden, p.epsilon)
        add(y, p.x + r * p.hidden * 4, p.hidden)


@staged
def narrow(thread: int, plan: int, index: int) -> None:
    """The inner products of the rows that use an adapter, into `lora`."""
    p = plan_at(plan, 1)[0]
    layer = layers_at(p.layer_records, p.layers)[index]
    row_uses = ints_at(p.row_uses, p.rows)
    uses = uses_at(p.uses, p.use_count * p.layers)
    for r in range(thread, p.rows, p.threads):
        if row_uses[r] < 0:
            continue
        use = uses[row_uses[r] * p.layers + index]
        if use.ranks == 0:
            continue
        x, scratch = p.x + r * p.hidden * 4, p.scratch + thread * p.scratch_bytes
        if layer.attention_norm != 0:
            norm(x, layer.attention_norm, scratch, p.hidden, p.epsilon)
            x = scratch
        lora_down(x, use.down, use.ranks, p.hidden, p.lora + r * p.rank_stride * 4)


@staged
def product(
    thread: int,
    plan: int,
    phase: int,
    matrix: int,
    kind: int,
    inputs: int,
    rows_in: int,
    stride: int,
    bias: int,
    out: int,
    onto: int,
) -> None:
    """A matrix of `hidden` outputs on all rows: an item is some blocks on up to ROWS rows.

    `rows_in` has rows of `inputs`, `stride` bytes apart; `bias` (0: none) is float32 [hidden];
    `onto`: whether `out` is added to.
    """
    p = plan_at(plan, 1)[0]
    blocks, width = p.hidden // BLOCK, p.hidden * 4
    parts = -(-p.rows // ROWS)
    size = block_size(kind, inputs)
    columns = -(-blocks // COLUMN_BLOCKS)
    while True:
        item = claim(p, phase)
        if item >= parts * columns:
            break
        first, block = item // columns * ROWS, item % columns * COLUMN_BLOCKS
        count, rows = min(COLUMN_BLOCKS, blocks - block), min(ROWS, p.rows - first)
        x, target = rows_in + first * stride, out + first * width + block * BLOCK * 4
        gemm(kind, matrix + block * size, count, x, inputs, rows, target, width, onto)
        if bias != 0:
            for i in range(rows):
                add(bias + block * BLOCK * 4, target + i * width, count * BLOCK)


@staged
def feed(thread: int, plan: int, index: int, phase: int) -> None:
    """Gate, up and their product into `fq`: an item is 32 columns of up to ROWS rows."""
    p = plan_at(plan, 1)[0]
    layer = layers_at(p.layer_records, p.layers)[index]
    parts, columns = -(-p.rows // ROWS), p.ffn // GROUP
    stride, out = p.ffn_row, p.scratch + thread * p.scratch_bytes
    gate_size, up_size = block_size(layer.gate_kind, p.hidden), block_size(layer.up_kind, p.hidden)
    up_out = out + ROWS * GROUP * 4
    while True:
        item = claim(p, phase)
        if item >= parts * columns:
            break
        column, first = item // parts, item % parts * ROWS
        rows = min(ROWS, p.rows - first)
        x = p.xq + first * p.hidden_row
        gate, up = layer.gate + 2 * column * gate_size, layer.up + 2 * column * up_size
        gemm(layer.gate_kind, gate, 2, x, p.hidden, rows, out, GROUP * 4, 0)
        gemm(layer.up_kind, up, 2, x, p.hidden, rows, up_out, GROUP * 4, 0)
        for i in range(rows):
            at, row = i * GROUP * 4, p.fq + (first + i) * stride
            if layer.gate_bias != 0:
                add(layer.gate_bias + column * GROUP * 4, out + at, GROUP)
                add(layer.up_bias + column * GROUP * 4, up_out + at, GROUP)
            gate_quantise(p.form, p.activation, out + at, up_out + at, row, p.ffn, column)
