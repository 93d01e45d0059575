"""The inner loops of attention: scores of a page, weights of a segment, mixing of a page's values.

`count` (1 .. 4) queries share what is loaded. Their scores lie in [count][SEGMENT pages][16]
float32, where weights replace them (as bfloat16 pairs in the first half of a page's 64 bytes, for
targets that multiply these). A *partial* is what a segment contributes: the highest score and the
sum of weights (`HEADER` bytes), then the weighted sum of values, float32[head_dim].

Whatever is the number of queries, each one's sums are made in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .dot import dot_bf16, lower, upper
from .emit import F32, I32, I64, Emit, Value, const
from .weights import HEADER, parts

SEGMENT = 32
"""Pages that are reduced by themselves; the partials of segments are combined in order."""

STRIDE = SEGMENT * 64
"""Bytes of a query's scores."""

QUERY, LIMIT, FIRST, MASK, PARTIAL = range(0, 40, 8)
"""Where in a query's entry of a call its facts are, int64 each: addresses of the query, of its
mask or 0, of its partial; it sees the slots first .. limit - 1."""

AHEAD = 3
"""Pages between what is computed and what is asked for from memory."""

ENTRY = 64
"""Bytes of an entry."""


def _queries(e: Emit, entries: Value, count: int, field: int) -> list[Value]:
    return [e.load(I64, entries, q * ENTRY + field) for q in range(count)]


def _weigh_line(
    e: Emit, sums: list[list[Value]], line: Value, odd: int, weights: Sequence[tuple[Value, int]]
) -> None:
    """Add a 64-byte line, times a pair of weights for each query, to the sums of each query."""
    if e.target.bf16:
        words = e.load(e.I, line)
        for own, (at, offset) in zip(sums, weights, strict=True):
            own[odd] = dot_bf16(e, own[odd], words, e.spread(I32, at, offset))
        return
    words = [e.load(e.I, line, part) for part in parts(e)]
    for side, take in enumerate((lower, upper)):
        lanes = [take(e, word) for word in words]
        for own, (at, offset) in zip(sums, weights, strict=True):
            factor = e.spread(F32, at, offset + 4 * side)
            for i, lane in enumerate(lanes):
                own[i] = e.fma(lane, factor, own[i])


def _store(e: Emit, sums: Sequence[Value], address: Value, offset: int) -> None:
    """Store 16 sums, which may have been made in two parts."""
    if e.target.bf16:
        e.store(e.b.fadd(*sums), address, offset)
    else:
        for value, part in zip(sums, parts(e), strict=True):
            e.store(value, address, offset + part)


def score(count: int) -> Callable[..., None]:
    """Products of `count` queries with the keys of pages.

    `addresses`: of the pages' heads, int64 each, and of AHEAD more to be asked for.
    """

    def emit(
        e: Emit, addresses: Value, pages: Value, entries: Value, scores: Value, head_dim: Value
    ) -> None:
        queries = _queries(e, entries, count, QUERY)
        size = 32 if e.target.bf16 else 64
        chunks = e.b.lshr(head_dim, const(I64, 4))

        def page(p: Value, _: list[Value]) -> list[Value]:
            at = e.at(addresses, p, 8)
            keys, ahead = e.load(I64, at), e.load(I64, at, 8 * AHEAD)

            def chunk(i: Value, carried: list[Value]) -> list[Value]:
                sums = [carried[2 * q : 2 * q + 2] for q in range(count)]
                lines, following = e.at(keys, i, 512), e.at(ahead, i, 512)
                own = [e.at(query, i, size) for query in queries]
                for pair in range(8):
                    e.prefetch(following, 64 * pair)
                    weights = [(query, pair * size // 8) for query in own]
                    _weigh_line(e, sums, e.at(lines, 64 * pair), pair & 1, weights)
                return [value for pair in sums for value in pair]

            sums = e.loop(chunks, [const(e.F, 0.0)] * (2 * count), chunk)
            out = e.at(scores, p, 64)
            for q in range(count):
                _store(e, sums[2 * q : 2 * q + 2], out, q * STRIDE)
            return []

        e.loop(pages, [], page)

    return emit


def mix(count: int) -> Callable[..., None]:
    """Add the values of pages, weighted, to the partials of `count` queries."""

    def emit(
        e: Emit, addresses: Value, pages: Value, entries: Value, weights: Value, head_dim: Value
    ) -> None:
        b = e.b
        partials = _queries(e, entries, count, PARTIAL)
        stride = b.shl(head_dim, const(I64, 2))
        chunks = b.lshr(head_dim, const(I64, 4))
        size = 32 if e.target.bf16 else 64
        keys = b.shl(head_dim, const(I64, 5))

        def page(p: Value, _: list[Value]) -> list[Value]:
            at, own = e.at(addresses, p, 8), e.at(weights, p, 64)
            values = b.add(e.load(I64, at), keys)
            ahead = b.add(e.load(I64, at, 8 * AHEAD), keys)

            def chunk(i: Value, _: list[Value]) -> list[Value]:
                offset = b.shl(i, const(I64, 6))
                places = [e.at(partial, offset) for partial in partials]
                sums = [_begin(e, place) for place in places]
                line, following = e.at(values, offset), e.at(ahead, b.shl(i, const(I64, 9)))
                for pair in range(8):
                    e.prefetch(following, 64 * pair)
                    pairs = [(own, q * STRIDE + pair * size // 8) for q in range(count)]
                    _weigh_line(e, sums, line, pair & 1, pairs)
                    line = e.at(line, stride)
                for place, both in zip(places, sums, strict=True):
                    _store(e, both, place, HEADER)
                return []

            e.loop(chunks, [], chunk)
            return []

        e.loop(pages, [], page)

    return emit


def _begin(e: Emit, partial: Value) -> list[Value]:
    """16 sums of a partial to go on from, as `_store` takes them."""
    if e.target.bf16:
        return [e.load(e.F, partial, HEADER), const(e.F, 0.0)]
    return [e.load(e.F, partial, HEADER + part) for part in parts(e)]
