"""Rotary positions, norms of single heads, and queries in the form that attention reads."""

from __future__ import annotations

import math

import numpy as np

from .bfloat import narrow
from .emit import F32, I64, LOG2_E, Emit, Value, const, vector
from .jit import compiled
from .library import load
from .memory import read_float, write_float
from .pages import rotate


def query_bytes(head_dim: int) -> int:
    """Bytes of a query head as `store_query` writes it."""
    return 4 * head_dim


def _put(e: Emit, x: Value, scale: Value, target: Value, i: Value) -> None:
    x = e.b.fmul(x, e.splat(scale, 8))
    if e.target.bf16:
        e.store(narrow(e, x), e.at(target, i, 16))
    else:
        e.store(x, e.at(target, i, 32))


def _put_query(e: Emit, source: Value, target: Value, head_dim: Value, scale: Value) -> None:
    def body(i: Value, _: list[Value]) -> list[Value]:
        _put(e, e.load(vector(F32, 8), e.at(source, i, 32)), scale, target, i)
        return []

    e.loop(e.b.lshr(head_dim, const(I64, 3)), [], body)


def _put_rotated(
    e: Emit, source: Value, factors: Value, target: Value, head_dim: Value, scale: Value
) -> None:
    half = e.b.lshr(head_dim, const(I64, 1))
    count = e.b.lshr(half, const(I64, 3))

    def body(i: Value, _: list[Value]) -> list[Value]:
        x, y = rotate(e, source, factors, half, i)
        _put(e, x, scale, target, i)
        _put(e, y, scale, target, e.b.add(i, count))
        return []

    e.loop(count, [], body)


def _norm(
    e: Emit, source: Value, weight: Value, target: Value, head_dim: Value, epsilon: float
) -> None:
    b, kind = e.b, vector(F32, 8)
    count = b.lshr(head_dim, const(I64, 3))

    def squares(i: Value, total: list[Value]) -> list[Value]:
        x = e.load(kind, e.at(source, i, 32))
        return [e.fma(x, x, total[0])]

    total = e.total(e.loop(count, [const(kind, 0.0)], squares)[0])
    mean = b.fdiv(total, b.sitofp(head_dim, F32))
    root = e.overloaded("sqrt", F32, b.fadd(mean, epsilon))
    inverse = e.splat(b.fdiv(const(F32, 1.0), root), 8)

    def write(i: Value, _: list[Value]) -> list[Value]:
        x = b.fmul(e.load(kind, e.at(source, i, 32)), inverse)
        e.store(b.fmul(x, e.load(kind, e.at(weight, i, 32))), e.at(target, i, 32))
        return []

    e.loop(count, [], write)


def _store_query(
    e: Emit, source: Value, factors: Value, out: Value, head_dim: Value, scale: float
) -> None:
    # Scores are kept in units of log 2, which makes powers of 2 of them instead of e.
    scaled = e.b.fmul(scale, const(F32, LOG2_E))
    with e.b.if_else(e.b.icmp_signed("!=", factors, const(I64, 0))) as (turned, plain):
        with turned:
            _put_rotated(e, source, factors, out, head_dim, scaled)
        with plain:
            _put_query(e, source, out, head_dim, scaled)


store_query, head_norm = load("rope", {"store_query": _store_query, "head_norm": _norm})
"""`store_query(source, factors, out, head_dim, scale)`: write the query float32[head_dim] at
`source`, times `scale` (that of scores, mostly 1 / sqrt(head_dim)), in the form of attention to
`out`, which has `query_bytes(head_dim)`; `factors`: what `rope_factors` wrote for the position, or
0 for no rotation. `head_norm(source, weight, out, head_dim, epsilon)`: root-mean-square norm of
float32[head_dim] times `weight`; `out` may be `source`."""


@compiled
def rope_factors(position: int, frequencies: int, half: int, amplitude: float, out: int) -> None:
    """Write cosines, then sines of a position, float32[half] each, times `amplitude`, to `out`.

    `frequencies`: the address of float32[half]. The angle is rounded to float32, as models were
    trained with; its cosine is exact to the last bit but one at any int32 position.
    """
    for i in range(half):
        angle = np.float64(np.float32(position) * read_float(frequencies + 4 * i))
        write_float(out + 4 * i, math.cos(angle) * amplitude)
        write_float(out + 4 * (half + i), math.sin(angle) * amplitude)
