"""bfloat16 in vectors: a 32-bit lane holds two neighbours, the first in its lower half."""

from __future__ import annotations

from .emit import BF16, F32, I16, I32, Emit, Value, const, vector

LARGEST = 3.3895313892515355e38
"""The largest finite bfloat16."""


def low(e: Emit, words: Value) -> Value:
    """The first of each lane's two, as float32."""
    whole = words.type
    return e.b.bitcast(e.b.shl(words, const(whole, 16)), vector(F32, whole.count))


def high(e: Emit, words: Value) -> Value:
    """The second of each lane's two, as float32."""
    whole = words.type
    return e.b.bitcast(e.b.and_(words, const(whole, -65536)), vector(F32, whole.count))


def finite(e: Emit, x: Value) -> Value:
    """x with 0 for what is not a number, and infinities as the largest that bfloat16 has."""
    x = e.b.select(e.b.fcmp_ordered("ord", x, x), x, const(x.type, 0.0))
    return e.maximum(e.minimum(x, const(x.type, LARGEST)), const(x.type, -LARGEST))


def narrow(e: Emit, x: Value) -> Value:
    """Float32 to bfloat16 in 16-bit lanes, to the nearest, halves to even."""
    b, count = e.b, x.type.count
    if e.target.bf16 and e.target.machine and count == 16:
        name = "llvm.x86.avx512bf16.cvtneps2bf16.512"
        return b.bitcast(e.call(name, vector(BF16, 16), x), vector(I16, 16))
    whole = vector(I32, count)
    bits = b.bitcast(x, whole)
    upper = b.lshr(bits, const(whole, 16))
    odd = b.and_(upper, const(whole, 1))
    rounded = b.lshr(b.add(bits, b.add(odd, const(whole, 0x7FFF))), const(whole, 16))
    kept = b.or_(upper, const(whole, 64))  # rounding could make an infinity of it
    number = b.fcmp_ordered("ord", x, x)
    return b.trunc(b.select(number, rounded, kept), vector(I16, count))


def dot(e: Emit, total: Value, x: Value, y: Value) -> Value:
    """total + x0 * y0 + x1 * y1 for the pairs in 16 lanes of words `x` and `y`."""
    if e.target.machine:
        pairs = vector(BF16, 32)
        x, y = e.b.bitcast(x, pairs), e.b.bitcast(y, pairs)
        return e.call("llvm.x86.avx512bf16.dpbf16ps.512", total.type, total, x, y)
    total = e.fma(high(e, x), high(e, y), total)
    return e.fma(low(e, x), low(e, y), total)
