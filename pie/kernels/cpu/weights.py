"""From scores to weights: what is hidden, soft caps, powers of two; and what a partial is.

A *partial* is what a segment contributes to a query: the highest score and the sum of weights
(`HEADER` bytes), then the weighted sum of values, float32[head_dim]. Scores are in units of log 2.
"""

from __future__ import annotations

from llvmlite import ir

from .bfloat import narrow
from .emit import F32, I16, I32, I64, LOG2_E, Emit, Value, const

HEADER = 64
"""Bytes before a partial's sum of values."""

QUERIES = 4
"""Most queries that share loads: two accumulators each, of the 16 registers of AVX2."""

LARGEST = 32767.0
"""The largest integer that a weight becomes."""

NOTHING = -1e30
"""The highest score of a segment that a query sees nothing of."""

_MAGIC = 12582912.0
"""1.5 * 2**23: adding it to a small float leaves the nearest integer in the lowest bits."""

_POWER = (0.0013264735462144017, 0.00967151764780283, 0.05550733953714371, 0.24022242426872253)
_POWER_1 = 0.6931470036506653


def power2(e: Emit, x: Value) -> Value:
    """2 to the power of x <= 126, within 2 units in the last place; 0 below -126, 1 at 0.

    By 2**n * 2**f with |f| <= 1/2, and 2**f = 1 + f * p(f), where p of degree 4 minimises the
    relative error (found by Lawson's reweighted least squares): 1.1e-7.
    """
    b, kind = e.b, x.type
    whole = ir.VectorType(I32, kind.count)
    moved = b.fadd(x, const(kind, _MAGIC))
    f = b.fsub(x, b.fsub(moved, const(kind, _MAGIC)))
    power = const(kind, _POWER[0])
    for factor in (*_POWER[1:], _POWER_1, 1.0):
        power = e.fma(power, f, const(kind, factor))
    exponent = b.shl(b.bitcast(moved, whole), const(whole, 23))
    result = b.bitcast(b.add(b.bitcast(power, whole), exponent), kind)
    return b.select(b.fcmp_ordered("<", x, const(kind, -126.0)), const(kind, 0.0), result)


def parts(e: Emit) -> range:
    """Offsets of the vectors in 64 bytes."""
    return range(0, 64, 4 * e.lanes)


def hide(e: Emit, scores: Value, pages: Value, bits: Value) -> None:
    """Minus infinity for the slots of pages whose bit is 0; `bits`: uint16[pages][QUERIES]."""
    b = e.b

    def page(p: Value, _: list[Value]) -> list[Value]:
        seen = e.load(I16, e.at(bits, p, 2 * QUERIES))

        def hidden() -> None:
            at, spread = e.at(scores, p, 64), e.splat(b.zext(seen, I32))
            for part in parts(e):
                first = part // 4
                lanes = ir.Constant(e.I, [1 << (first + lane) for lane in range(e.lanes)])
                kept = b.icmp_unsigned("!=", b.and_(spread, lanes), const(e.I, 0))
                value = b.select(kept, e.load(e.F, at, part), const(e.F, float("-inf")))
                e.store(value, at, part)

        e.when(b.icmp_unsigned("!=", seen, const(I16, 0xFFFF)), hidden)
        return []

    e.loop(pages, [], page)


def cap(e: Emit, scores: Value, pages: Value, limit: float) -> None:
    """limit * tanh(score / limit) of a query's scores."""
    b, one, two = e.b, const(e.F, 1.0), const(e.F, 2.0)
    factor = e.splat(b.fdiv(const(F32, 2 * LOG2_E), limit))
    high_limit = e.splat(limit)

    def body(i: Value, _: list[Value]) -> list[Value]:
        at = e.at(scores, i, 64)
        for part in parts(e):
            x = b.fmul(e.load(e.F, at, part), factor)
            x = e.minimum(const(e.F, 120.0), e.maximum(const(e.F, -120.0), x))
            tanh = b.fsub(one, b.fdiv(two, b.fadd(power2(e, x), one)))
            e.store(b.fmul(tanh, high_limit), at, part)
        return []

    e.loop(pages, [], body)


def _highest(e: Emit, x: Value) -> Value:
    """The largest lane, where none is not a number; cheaper than what LLVM makes to be sure."""
    count = x.type.count
    while count > 1:
        count //= 2
        order = ir.Constant(ir.VectorType(I32, count), list(range(count)))
        other = ir.Constant(ir.VectorType(I32, count), list(range(count, 2 * count)))
        halves = [e.b.shuffle_vector(x, x, lanes) for lanes in (order, other)]
        x = e.maximum(*halves)
    return e.b.extract_element(x, const(I32, 0))


def _tops(e: Emit, scores: Value, pages: Value) -> Value:
    """The highest score of a query, at least NOTHING."""

    def body(i: Value, tops: list[Value]) -> list[Value]:
        at = e.at(scores, i, 64)
        own = [e.load(e.F, at, part) for part in parts(e)]
        return [e.maximum(value, top) for top, value in zip(tops, own, strict=True)]

    tops = e.loop(pages, [const(e.F, NOTHING)] * len(parts(e)), body)
    return _highest(e, tops[0] if len(tops) == 1 else e.maximum(*tops))


def _begin(e: Emit, partial: Value, head_dim: Value, top: Value, sums: list[Value]) -> None:
    clear(e, partial, head_dim)
    e.store(top, partial)
    e.store(e.total(sums[0] if len(sums) == 1 else e.b.fadd(*sums)), partial, 4)


def weigh(e: Emit, scores: Value, pages: Value, partial: Value, head_dim: Value) -> None:
    """Scores of a query to weights 2**(score - highest); begins the partial."""
    top = _tops(e, scores, pages)
    spread = e.splat(top)

    def body(i: Value, sums: list[Value]) -> list[Value]:
        at, new = e.at(scores, i, 64), []
        for part, total in zip(parts(e), sums, strict=True):
            weight = power2(e, e.b.fsub(e.load(e.F, at, part), spread))
            e.store(narrow(e, weight) if e.target.bf16 else weight, at, part)
            new.append(e.b.fadd(total, weight))
        return new

    sums = e.loop(pages, [const(e.F, 0.0)] * len(parts(e)), body)
    _begin(e, partial, head_dim, top, sums)


def weigh_scaled(
    e: Emit, scores: Value, pages: Value, partial: Value, head_dim: Value, addresses: Value
) -> None:
    """As `weigh` for pages of bytes: weights times the scales of the values, as 16-bit integers.

    The scale of these is that of the segment, and kept in the partial's header.
    """
    b, count = e.b, len(parts(e))
    top = _tops(e, scores, pages)
    spread = e.splat(top)
    scales = b.add(b.shl(head_dim, const(I64, 5)), const(I64, 64))

    def body(i: Value, carried: list[Value]) -> list[Value]:
        at = e.at(scores, i, 64)
        own = b.add(e.load(I64, e.at(addresses, i, 8)), scales)
        sums, largest = carried[:count], carried[count:]
        for k, part in enumerate(parts(e)):
            weight = power2(e, b.fsub(e.load(e.F, at, part), spread))
            scaled = b.fmul(weight, e.load(e.F, own, part))
            e.store(scaled, at, part)
            sums[k], largest[k] = b.fadd(sums[k], weight), e.maximum(scaled, largest[k])
        return sums + largest

    found = e.loop(pages, [const(e.F, 0.0)] * (2 * count), body)
    _begin(e, partial, head_dim, top, found[:count])
    most = _highest(e, found[count] if count == 1 else e.maximum(*found[count:]))
    some = b.fcmp_ordered(">", most, const(F32, 1e-30))
    inverse = b.select(some, b.fdiv(const(F32, LARGEST), most), const(F32, 0.0))
    e.store(b.fmul(most, const(F32, 1.0 / LARGEST)), partial, 8)
    factor = e.splat(inverse)

    def cut(i: Value, _: list[Value]) -> list[Value]:
        at = e.at(scores, i, 64)
        values = [e.load(e.F, at, part) for part in parts(e)]  # before any of them is replaced
        for value, part in zip(values, parts(e), strict=True):
            whole = b.fptosi(e.round(b.fmul(value, factor)), e.I)
            e.store(b.trunc(whole, ir.VectorType(I16, e.lanes)), at, part // 2)
        return []

    e.loop(pages, [], cut)


def settle(e: Emit, partial: Value, head_dim: Value) -> None:
    """Sums of integers in a partial to float32, by the scale in its header."""
    scale = e.spread(F32, partial, 8)

    def body(i: Value, _: list[Value]) -> list[Value]:
        at = e.at(partial, i, 64)
        for part in parts(e):
            value = e.b.sitofp(e.load(e.I, at, HEADER + part), e.F)
            e.store(e.b.fmul(value, scale), at, HEADER + part)
        return []

    e.loop(e.b.lshr(head_dim, const(I64, 4)), [], body)


def clear(e: Emit, partial: Value, head_dim: Value) -> None:
    """A partial of nothing."""

    def body(i: Value, _: list[Value]) -> list[Value]:
        for part in parts(e):
            e.store(const(e.F, 0.0), e.at(partial, i, 64), HEADER + part)
        return []

    e.store(const(F32, NOTHING), partial)
    e.store(const(F32, 0.0), partial, 4)
    e.loop(e.b.lshr(head_dim, const(I64, 4)), [], body)
