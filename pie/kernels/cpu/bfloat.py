"""Rounding to bfloat16 in vectors of any length."""

from __future__ import annotations

from .emit import BF16, I16, I32, Emit, Value, const, vector

LARGEST = 3.3895313892515355e38
"""The largest finite bfloat16."""


def finite(e: Emit, x: Value) -> Value:
    """x with 0 for what is not a number, and infinities as the largest that bfloat16 has."""
    x = e.b.select(e.b.fcmp_ordered("ord", x, x), x, const(x.type, 0.0))
    return e.maximum(e.minimum(x, const(x.type, LARGEST)), const(x.type, -LARGEST))


def narrow(e: Emit, x: Value) -> Value:
    """Float32 to the bits of bfloat16, to the nearest, halves to even; not a number stays so.

    The instruction that there is for the target's own vectors takes subnormals for zeros.
    """
    b, count = e.b, x.type.count
    if count == e.lanes and e.target.bf16 and e.target.dot != "portable":
        name = f"llvm.x86.avx512bf16.cvtneps2bf16.{32 * count}"
        return b.bitcast(e.call(name, vector(BF16, count), x), vector(I16, count))
    whole = vector(I32, count)
    bits = b.bitcast(x, whole)
    upper = b.lshr(bits, const(whole, 16))
    odd = b.and_(upper, const(whole, 1))
    rounded = b.lshr(b.add(bits, b.add(odd, const(whole, 0x7FFF))), const(whole, 16))
    kept = b.or_(upper, const(whole, 64))  # rounding could make an infinity of it
    number = b.fcmp_ordered("ord", x, x)
    return b.trunc(b.select(number, rounded, kept), vector(I16, count))
