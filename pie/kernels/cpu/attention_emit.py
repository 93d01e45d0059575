"""The inner loops of attention: scores of a page, weights of a segment, mixing of a page's values.

`count` (1 .. 4) queries share what is loaded. Their scores lie in [count][SEGMENT pages][16]
float32, where weights replace them (as bfloat16 pairs in the first half of a page's 64 bytes, for
targets that multiply these). A *partial* is what a segment contributes: the highest score and the
sum of weights (`HEADER` bytes), then the weighted sum of values, float32[head_dim].

Whatever is the number of queries, each one's sums are made in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from .bfloat import dot, high, low, narrow
from .emit import F32, I32, I64, Emit, Value, const

SEGMENT = 32
"""Pages that are reduced by themselves; the partials of segments are combined in order."""

QUERIES = 4
"""Most queries that share loads: two accumulators each, of the 16 registers of AVX2."""

HEADER = 64
"""Bytes before a partial's sum of values."""

STRIDE = SEGMENT * 64
"""Bytes of a query's scores."""

QUERY, LIMIT, FIRST, MASK, PARTIAL = range(0, 40, 8)
"""Where in a query's entry of a call its facts are, int64 each: addresses of the query, of its
mask or 0, of its partial; it sees the slots first .. limit - 1."""

ENTRY = 64
"""Bytes of an entry."""

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


def _parts(e: Emit) -> range:
    """Offsets of the vectors in 64 bytes."""
    return range(0, 64, 4 * e.lanes)


def _queries(e: Emit, entries: Value, count: int, field: int) -> list[Value]:
    return [e.load(I64, entries, q * ENTRY + field) for q in range(count)]


def _weigh_line(
    e: Emit, sums: list[list[Value]], line: Value, odd: int, weights: Sequence[tuple[Value, int]]
) -> None:
    """Add a 64-byte line, times a pair of weights for each query, to the sums of each query."""
    if e.target.bf16:
        words = e.load(e.I, line)
        for own, (at, offset) in zip(sums, weights, strict=True):
            own[odd] = dot(e, own[odd], words, e.spread(I32, at, offset))
        return
    words = [e.load(e.I, line, part) for part in _parts(e)]
    for side, take in enumerate((low, high)):
        lanes = [take(e, word) for word in words]
        for own, (at, offset) in zip(sums, weights, strict=True):
            factor = e.spread(F32, at, 2 * offset + 4 * side)
            for i, lane in enumerate(lanes):
                own[i] = e.fma(lane, factor, own[i])


def score(count: int) -> Callable[..., None]:
    """Products of `count` queries with a page's keys; asks for the keys of the following page."""

    def emit(
        e: Emit, entries: Value, keys: Value, following: Value, scores: Value, head_dim: Value
    ) -> None:
        queries = _queries(e, entries, count, QUERY)

        def body(i: Value, carried: list[Value]) -> list[Value]:
            sums = [carried[2 * q : 2 * q + 2] for q in range(count)]
            lines, ahead = e.at(keys, i, 512), e.at(following, i, 512)
            own = [e.at(query, i, 32 if e.target.bf16 else 64) for query in queries]
            for pair in range(8):
                e.prefetch(ahead, 64 * pair)
                weights = [(query, 4 * pair) for query in own]
                _weigh_line(e, sums, e.at(lines, 64 * pair), pair & 1, weights)
            return [value for pair in sums for value in pair]

        start = [const(e.F, 0.0)] * (2 * count)
        sums = e.loop(e.b.lshr(head_dim, const(I64, 4)), start, body)
        for q in range(count):
            first, second = sums[2 * q : 2 * q + 2]
            if e.target.bf16:
                e.store(e.b.fadd(first, second), scores, q * STRIDE)
            else:
                for value, part in zip((first, second), _parts(e), strict=True):
                    e.store(value, scores, q * STRIDE + part)

    return emit


def mix(count: int) -> Callable[..., None]:
    """Add a page's values, weighted, to partials; asks for the values of the following page."""

    def emit(
        e: Emit, entries: Value, values: Value, following: Value, weights: Value, head_dim: Value
    ) -> None:
        partials = _queries(e, entries, count, PARTIAL)
        stride = e.b.shl(head_dim, const(I64, 2))

        def body(i: Value, _: list[Value]) -> list[Value]:
            offset = e.b.shl(i, const(I64, 6))
            own = [e.at(partial, offset) for partial in partials]
            if e.target.bf16:
                sums = [[e.load(e.F, at, HEADER), const(e.F, 0.0)] for at in own]
            else:
                sums = [[e.load(e.F, at, HEADER + part) for part in _parts(e)] for at in own]
            line, ahead = e.at(values, offset), e.at(following, e.b.shl(i, const(I64, 9)))
            for pair in range(8):
                e.prefetch(ahead, 64 * pair)
                pairs = [(weights, q * STRIDE + 4 * pair) for q in range(count)]
                if not e.target.bf16:
                    pairs = [(e.at(weights, q * STRIDE), 4 * pair) for q in range(count)]
                _weigh_line(e, sums, line, pair & 1, pairs)
                line = e.at(line, stride)
            for at, (first, second) in zip(own, sums, strict=True):
                if e.target.bf16:
                    e.store(e.b.fadd(first, second), at, HEADER)
                else:
                    for value, part in zip((first, second), _parts(e), strict=True):
                        e.store(value, at, HEADER + part)
            return []

        e.loop(e.b.lshr(head_dim, const(I64, 4)), [], body)

    return emit


def hide(e: Emit, scores: Value, bits: Value) -> None:
    """Minus infinity for the slots of a page whose bit in the 16 of `bits` is 0."""
    b = e.b
    spread = e.splat(b.trunc(bits, I32))
    for part in _parts(e):
        first = part // 4
        lanes = ir.Constant(e.I, [1 << (first + lane) for lane in range(e.lanes)])
        seen = b.icmp_unsigned("!=", b.and_(spread, lanes), const(e.I, 0))
        value = b.select(seen, e.load(e.F, scores, part), const(e.F, float("-inf")))
        e.store(value, scores, part)


def cap(e: Emit, scores: Value, pages: Value, limit: Value) -> None:
    """limit * tanh(score / limit) of a query's scores."""
    b, one, two = e.b, const(e.F, 1.0), const(e.F, 2.0)
    factor = e.splat(b.fdiv(const(F32, 2 * 1.4426950408889634), limit))
    high_limit = e.splat(limit)

    def body(i: Value, _: list[Value]) -> list[Value]:
        at = e.at(scores, i, 64)
        for part in _parts(e):
            x = b.fmul(e.load(e.F, at, part), factor)
            x = e.minimum(const(e.F, 120.0), e.maximum(const(e.F, -120.0), x))
            tanh = b.fsub(one, b.fdiv(two, b.fadd(power2(e, x), one)))
            e.store(b.fmul(tanh, high_limit), at, part)
        return []

    e.loop(pages, [], body)


def weigh(e: Emit, scores: Value, pages: Value, partial: Value) -> None:
    """Scores of a query to weights 2**(score - highest); fills the partial's header."""
    b = e.b

    def highest(i: Value, tops: list[Value]) -> list[Value]:
        at = e.at(scores, i, 64)
        own = [e.load(e.F, at, part) for part in _parts(e)]
        return [e.maximum(top, value) for top, value in zip(tops, own, strict=True)]

    tops = e.loop(pages, [const(e.F, NOTHING)] * len(_parts(e)), highest)
    top = e.highest(tops[0] if len(tops) == 1 else e.maximum(*tops))
    tops_spread = e.splat(top)

    def body(i: Value, sums: list[Value]) -> list[Value]:
        at, new = e.at(scores, i, 64), []
        for part, total in zip(_parts(e), sums, strict=True):
            weight = power2(e, b.fsub(e.load(e.F, at, part), tops_spread))
            e.store(narrow(e, weight) if e.target.bf16 else weight, at, part)
            new.append(b.fadd(total, weight))
        return new

    sums = e.loop(pages, [const(e.F, 0.0)] * len(tops), body)
    e.store(top, partial)
    e.store(e.total(sums[0] if len(sums) == 1 else b.fadd(*sums)), partial, 4)
