"""Keys, values and queries as integers: a scale for each token and head.

Keys and values are code * scale with codes -127 .. 127, queries with 16-bit codes, whose rounding
is small beside the others'. A page's head holds codes of K as [head_dim / 2][16 tokens][2], codes
of V as [8 pairs of tokens][head_dim][2], and float32 scales [2][16]: K's, then V's.
"""

from __future__ import annotations

from collections.abc import Callable

from .bfloat import finite
from .emit import F32, I8, I16, I32, I64, LOG2_E, Emit, Value, const, vector
from .library import load
from .pages import rotate

_EIGHT = vector(F32, 8)
_SMALLEST = 1e-30
"""A head without a larger value is taken for zeros: the inverse of its scale may be infinite."""

Visit = Callable[[Value, Value], None]
"""Takes 8 float32 and which 8 of a head these are."""


def _visit(e: Emit, source: Value, factors: Value | None, head_dim: Value, use: Visit) -> None:
    """Call `use` for all of a head, rotated if there are factors, and all finite."""
    count = e.b.lshr(head_dim, const(I64, 3))
    if factors is None:

        def plain(i: Value, _: list[Value]) -> list[Value]:
            use(finite(e, e.load(_EIGHT, e.at(source, i, 32))), i)
            return []

        e.loop(count, [], plain)
        return
    half, halves = e.b.lshr(head_dim, const(I64, 1)), e.b.lshr(count, const(I64, 1))

    def turned(i: Value, _: list[Value]) -> list[Value]:
        x, y = rotate(e, source, factors, half, i)
        use(finite(e, x), i)
        use(finite(e, y), e.b.add(i, halves))
        return []

    e.loop(halves, [], turned)


def _encode(
    e: Emit,
    source: Value,
    factors: Value | None,
    head_dim: Value,
    largest: int,
    put: Callable[[Value, Value], None],
) -> Value:
    """Call `put` with codes -largest .. largest (8 int32) for all of a head; gives their scale."""
    b = e.b
    with b.goto_entry_block():
        top = b.alloca(_EIGHT)
    b.store(const(_EIGHT, 0.0), top)

    def widen(x: Value, _: Value) -> None:
        b.store(e.maximum(e.absolute(x), b.load(top)), top)

    _visit(e, source, factors, head_dim, widen)
    most = e.highest(b.load(top))
    some = b.fcmp_ordered(">", most, const(F32, _SMALLEST))
    inverse = b.select(some, b.fdiv(const(F32, float(largest)), most), const(F32, 0.0))
    factor = e.splat(inverse, 8)

    def round_off(x: Value, i: Value) -> None:
        put(b.fptosi(e.round(b.fmul(x, factor)), vector(I32, 8)), i)

    _visit(e, source, factors, head_dim, round_off)
    return b.select(some, b.fmul(most, const(F32, 1.0 / largest)), const(F32, 0.0))


def _either(e: Emit, factors: Value, body: Callable[[Value | None], None]) -> None:
    """`body` with the factors, or with None where their address is 0."""
    with e.b.if_else(e.b.icmp_signed("!=", factors, const(I64, 0))) as (turned, plain):
        with turned:
            body(factors)
        with plain:
            body(None)


def _store_key(
    e: Emit, source: Value, factors: Value, head: Value, slot: Value, head_dim: Value
) -> None:
    b = e.b
    target = e.at(head, slot, 2)

    def put(codes: Value, i: Value) -> None:
        pairs = b.bitcast(b.trunc(codes, vector(I8, 8)), vector(I16, 4))
        line = e.at(target, i, 128)
        for pair in range(4):
            e.store(b.extract_element(pairs, const(I32, pair)), line, 32 * pair)

    def body(own: Value | None) -> None:
        scale = _encode(e, source, own, head_dim, 127, put)
        e.store(scale, e.at(e.at(head, head_dim, 32), slot, 4))

    _either(e, factors, body)


def _store_value(e: Emit, source: Value, head: Value, slot: Value, head_dim: Value) -> None:
    b = e.b
    row = b.mul(b.lshr(slot, const(I64, 1)), b.shl(head_dim, const(I64, 1)))
    target = b.add(b.add(e.at(head, head_dim, 16), row), b.and_(slot, const(I64, 1)))

    def put(codes: Value, i: Value) -> None:
        narrowed = b.trunc(codes, vector(I8, 8))
        for j in range(8):
            e.store(b.extract_element(narrowed, const(I32, j)), e.at(target, i, 16), 2 * j)

    scale = _encode(e, source, None, head_dim, 127, put)
    e.store(scale, e.at(e.at(head, head_dim, 32), slot, 4), 64)


def _store_query(
    e: Emit, source: Value, factors: Value, out: Value, head_dim: Value, scale: float
) -> None:
    b = e.b

    def put(codes: Value, i: Value) -> None:
        e.store(b.trunc(codes, vector(I16, 8)), e.at(out, i, 16))

    def check(i: Value, sums: list[Value]) -> list[Value]:
        x = e.load(_EIGHT, e.at(source, i, 32))
        return [b.fadd(sums[0], b.fmul(x, const(_EIGHT, 0.0)))]

    count = b.lshr(head_dim, const(I64, 3))
    # Zero, or not a number if the query has what is none: its scores must not be, either.
    doubt = e.total(e.loop(count, [const(_EIGHT, 0.0)], check)[0])

    def body(own: Value | None) -> None:
        unit = _encode(e, source, own, head_dim, 32767, put)
        unit = b.fmul(unit, b.fmul(scale, const(F32, LOG2_E)))
        e.store(b.fadd(unit, doubt), e.at(out, head_dim, 2))

    _either(e, factors, body)


store_key8, store_value8, store_query8 = load(
    "pages8", {"store_key8": _store_key, "store_value8": _store_value, "store_query8": _store_query}
)
"""As `pages.store_key` and `store_value` and `rope.store_query`, for pages of the form INT8."""
