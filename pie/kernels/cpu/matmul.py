"""Products of packed matrices and activation rows: blocks of outputs, and tiles of rows in them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .emit import I64, Emit, Value, const
from .layout import BLOCK, GROUP, GROUP_BYTES, Kind
from .library import Emitter, call_once, load
from .rows import form_of, group_bytes
from .tiles import emit_tile


def heights(lanes: int) -> tuple[int, ...]:
    """Rows of the tiles, the tallest first; the others are the powers of two below."""
    return (8, 4, 2, 1) if lanes == 16 else (4, 2, 1)


def _gemm(
    e: Emit,
    kind: Value,
    weights: Value,
    blocks: Value,
    x: Value,
    inputs: Value,
    rows: Value,
    out: Value,
    out_stride: Value,
    add: Value,
) -> None:
    """out[rows, 16 * blocks] = x times blocks of a packed matrix, added to what is there if `add`.

    `x` is rows of the kind's form, `out` float32 rows that are `out_stride` bytes apart.
    """
    b, zero = e.b, const(I64, 0)
    some = b.and_(b.icmp_signed(">", blocks, zero), b.icmp_signed(">", rows, zero))
    groups = b.sdiv(inputs, const(I64, GROUP))

    def of_kind(known: Kind) -> None:
        size = b.mul(groups, const(I64, group_bytes(form_of(known), e.target)))
        stride = b.and_(b.add(size, const(I64, 63)), const(I64, -64))

        def block(i: Value, _: list[Value]) -> list[Value]:
            at, to = e.at(weights, b.mul(groups, i), GROUP_BYTES[known]), e.at(out, i, 4 * BLOCK)

            def tile(height: int, row: Value) -> None:
                start, end = e.at(x, b.mul(row, stride)), e.at(to, b.mul(row, out_stride))
                arguments = (at, inputs, start, stride, end, out_stride, add)
                name = f"pie_tile_{known.name}_{height}"
                call_once(e, name, partial(emit_tile, known, height), *arguments)

            _by_heights(e, rows, tile)
            return []

        e.loop(blocks, [], block)

    for known in Kind:
        chosen = b.and_(some, b.icmp_signed("==", kind, const(I64, known)))
        e.when(chosen, partial(of_kind, known))


def _by_heights(e: Emit, rows: Value, tile: Callable[[int, Value], None]) -> None:
    """`tile(height, first row)` until all rows are done."""
    b, zero = e.b, const(I64, 0)
    tallest, *others = heights(e.lanes)
    full = b.sdiv(rows, const(I64, tallest))

    def step(i: Value, _: list[Value]) -> list[Value]:
        tile(tallest, b.mul(i, const(I64, tallest)))
        return []

    def many() -> None:
        e.loop(full, [], step)

    e.when(b.icmp_signed(">", full, zero), many)
    done = b.mul(full, const(I64, tallest))
    rest = b.sub(rows, done)
    for height in others:
        has = b.and_(rest, const(I64, height))
        e.when(b.icmp_signed("!=", has, zero), partial(tile, height, done))
        done = b.add(done, has)


EMITTERS: dict[str, Emitter] = {"gemm": _gemm}

(gemm,) = load("matmul", EMITTERS)
