"""The inner loops of attention: scores of a page, weights of a segment, mixing of a page's values.

`count` (1 .. 4) queries share what is loaded. Their scores lie in [count][SEGMENT pages][16]
float32, where weights replace them (16-bit ones in the first half of a page's 64 bytes). For what
a partial is, see `weights`.

Whatever is the number of queries, each one's sums are made in the same order.
"""

from __future__ import annotations

from collections.abc import Callable

from .emit import I64, Emit, Value, const
from .lines import Lines
from .weights import parts

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


def score(count: int, kind: type[Lines]) -> Callable[..., None]:
    """Products of `count` queries with the keys of pages.

    `addresses`: of the pages' heads, int64 each, and of AHEAD more to be asked for.
    """

    def emit(
        e: Emit, addresses: Value, pages: Value, entries: Value, scores: Value, head_dim: Value
    ) -> None:
        lines, queries = kind(e), _queries(e, entries, count, QUERY)
        step = lines.unrolled
        chunks = e.b.sdiv(head_dim, const(I64, 2 * step))

        def page(p: Value, _: list[Value]) -> list[Value]:
            at = e.at(addresses, p, 8)
            keys, ahead = e.load(I64, at), e.load(I64, at, 8 * AHEAD)

            def chunk(i: Value, carried: list[Value]) -> list[Value]:
                sums = [carried[2 * q : 2 * q + 2] for q in range(count)]
                line = e.at(keys, i, step * lines.line)
                own = [e.at(query, i, step * lines.pair) for query in queries]
                _ask(e, e.at(ahead, i, step * lines.line), step * lines.line)
                for k in range(step):
                    pairs = [(query, k * lines.pair) for query in own]
                    lines.add(sums, e.at(line, lines.line * k), k & 1, pairs)
                return [value for both in sums for value in both]

            sums = e.loop(chunks, lines.zeros() * count, chunk)
            out = e.at(scores, p, 64)
            for q, query in enumerate(queries):
                found = lines.scores(sums[2 * q : 2 * q + 2], query, keys, head_dim)
                for value, part in zip(found, parts(e), strict=True):
                    e.store(value, out, q * STRIDE + part)
            return []

        e.loop(pages, [], page)

    return emit


def mix(count: int, kind: type[Lines]) -> Callable[..., None]:
    """Add the values of pages, weighted, to the partials of `count` queries."""

    def emit(
        e: Emit, addresses: Value, pages: Value, entries: Value, weights: Value, head_dim: Value
    ) -> None:
        b, lines, partials = e.b, kind(e), _queries(e, entries, count, PARTIAL)
        step = lines.unrolled
        chunks = b.lshr(head_dim, const(I64, 4))
        stride = b.mul(chunks, const(I64, lines.line))
        keys = b.mul(stride, const(I64, 8))

        def page(p: Value, _: list[Value]) -> list[Value]:
            at, own = e.at(addresses, p, 8), e.at(weights, p, 64)
            values = b.add(e.load(I64, at), keys)
            ahead = b.add(e.load(I64, at, 8 * AHEAD), keys)

            def chunk(i: Value, _: list[Value]) -> list[Value]:
                places = [e.at(partial, i, 64) for partial in partials]
                sums = [lines.load(place) for place in places]
                _ask(e, e.at(ahead, i, 8 * lines.line), 8 * lines.line)
                flat = [value for both in sums for value in both]
                first = e.at(values, i, lines.line)

                def some(k: Value, carried: list[Value]) -> list[Value]:
                    sums = [carried[2 * q : 2 * q + 2] for q in range(count)]
                    line, at = e.at(first, b.mul(k, stride), step), e.at(own, k, step * lines.pair)
                    for pair in range(step):
                        pairs = [(at, q * STRIDE + pair * lines.pair) for q in range(count)]
                        lines.add(sums, line, pair & 1, pairs)
                        line = e.at(line, stride)
                    return [value for both in sums for value in both]

                flat = e.loop(8 // step, flat, some) if step < 8 else some(const(I64, 0), flat)
                sums = [flat[2 * q : 2 * q + 2] for q in range(count)]
                for place, both in zip(places, sums, strict=True):
                    lines.store(both, place)
                return []

            e.loop(chunks, [], chunk)
            return []

        e.loop(pages, [], page)

    return emit


def _ask(e: Emit, address: Value, size: int) -> None:
    for offset in range(0, size, 64):
        e.prefetch(address, offset)
