"""Rounding to bfloat16 in vectors of any length."""

from __future__ import annotations

from .emit import I16, I32, Emit, Value, const, vector

LARGEST = 3.3895313892515355e38
"""The largest finite bfloat16."""


def finite(e: Emit, x: Value) -> Value:
    """x with 0 for what is not a number, and infinities as the largest that bfloat16 has."""
    x = e.b.select(e.b.fcmp_ordered("ord", x, x), x, const(x.type, 0.0))
    return e.maximum(e.minimum(x, const(x.type, LARGEST)), const(x.type, -LARGEST))


def narrow(e: Emit, x: Value) -> Value:
    """Float32 to bfloat16 in 16-bit lanes, to the nearest, halves to even; as `dot.to_bf16`."""
    b, count = e.b, x.type.count
    whole = vector(I32, count)
    bits = b.bitcast(x, whole)
    upper = b.lshr(bits, const(whole, 16))
    odd = b.and_(upper, const(whole, 1))
    rounded = b.lshr(b.add(bits, b.add(odd, const(whole, 0x7FFF))), const(whole, 16))
    kept = b.or_(upper, const(whole, 64))  # rounding could make an infinity of it
    number = b.fcmp_ordered("ord", x, x)
    return b.trunc(b.select(number, rounded, kept), vector(I16, count))
