"""How K and V lie in memory, and how a token's are written.

A page holds PAGE_SIZE tokens (see `layout`) of all layers: [layers][KV heads] of *heads*, one after
the other. A head of a page is bfloat16:

* K as [head_dim / 2 pairs of dimensions][16 tokens][2], then
* V as [8 pairs of tokens][head_dim][2],

so that every 64-byte line is one operand of a two-way dot product in 16 lanes: K of all tokens,
V of 16 dimensions. A head of the form INT8 is laid out likewise in bytes; see `pages8`. What is
written is finite, because a token that is not seen has weight zero, and zero times infinity is not
zero.

Addresses and sizes are bytes; `head_dim` is a multiple of 16.
"""

from __future__ import annotations

from .bfloat import finite, narrow
from .emit import F32, I64, Emit, Value, const, vector
from .library import load
from .lines import Form


def head_bytes(head_dim: int, form: int = Form.BF16) -> int:
    """Bytes of one KV head of one layer in a page: K and V of 16 tokens."""
    return 32 * head_dim + 128 if form == Form.INT8 else 64 * head_dim


def page_bytes(layers: int, kv_heads: int, head_dim: int, form: int = Form.BF16) -> int:
    """Bytes of a page."""
    return layers * kv_heads * head_bytes(head_dim, form)


def rotate(e: Emit, source: Value, factors: Value, half: Value, i: Value) -> tuple[Value, Value]:
    """Dimensions 8i .. 8i+7 of a head's first and second half, rotated; float32.

    `factors` are the address of cosines, then sines, `half` of each (see `rope`).
    """
    b, kind = e.b, vector(F32, 8)
    at = b.mul(i, const(I64, 32))
    second = b.mul(half, const(I64, 4))
    first_at, second_at = b.add(source, at), b.add(source, b.add(at, second))
    x, y = e.load(kind, first_at), e.load(kind, second_at)
    cosine = e.load(kind, b.add(factors, at))
    sine = e.load(kind, b.add(factors, b.add(at, second)))
    turned = b.fsub(b.fmul(x, cosine), b.fmul(y, sine))
    return turned, b.fadd(b.fmul(y, cosine), b.fmul(x, sine))


def _put_pairs(e: Emit, x: Value, target: Value, i: Value) -> None:
    """Keys of dimensions 8i .. 8i+7 into their lines; `target` is the token's place in line 0."""
    words = e.b.bitcast(narrow(e, finite(e, x)), vector(e.I.element, 4))
    line = e.at(target, i, 256)
    for pair in range(4):
        e.store(e.b.extract_element(words, const(e.I.element, pair)), line, 64 * pair)


def _put_key(e: Emit, source: Value, target: Value, head_dim: Value) -> None:
    def body(i: Value, _: list[Value]) -> list[Value]:
        _put_pairs(e, e.load(vector(F32, 8), e.at(source, i, 32)), target, i)
        return []

    e.loop(e.b.lshr(head_dim, const(I64, 3)), [], body)


def _put_rotated(e: Emit, source: Value, factors: Value, target: Value, head_dim: Value) -> None:
    half = e.b.lshr(head_dim, const(I64, 1))
    count = e.b.lshr(half, const(I64, 3))

    def body(i: Value, _: list[Value]) -> list[Value]:
        x, y = rotate(e, source, factors, half, i)
        _put_pairs(e, x, target, i)
        _put_pairs(e, y, target, e.b.add(i, count))
        return []

    e.loop(count, [], body)


def _put_value(e: Emit, source: Value, target: Value, head_dim: Value) -> None:
    def body(i: Value, _: list[Value]) -> list[Value]:
        x = e.load(vector(F32, 8), e.at(source, i, 32))
        narrowed = narrow(e, finite(e, x))
        for j in range(8):
            half = e.b.extract_element(narrowed, const(e.I.element, j))
            e.store(half, e.at(target, i, 32), 4 * j)
        return []

    e.loop(e.b.lshr(head_dim, const(I64, 3)), [], body)


def _store_key(
    e: Emit, source: Value, factors: Value, head: Value, slot: Value, head_dim: Value
) -> None:
    target = e.at(head, slot, 4)
    with e.b.if_else(e.b.icmp_signed("!=", factors, const(I64, 0))) as (turned, plain):
        with turned:
            _put_rotated(e, source, factors, target, head_dim)
        with plain:
            _put_key(e, source, target, head_dim)


def _store_value(e: Emit, source: Value, head: Value, slot: Value, head_dim: Value) -> None:
    b = e.b
    pair = b.mul(b.lshr(slot, const(I64, 1)), b.shl(head_dim, const(I64, 2)))
    pair = b.add(b.add(head, b.shl(head_dim, const(I64, 5))), pair)
    _put_value(e, source, e.at(pair, b.and_(slot, const(I64, 1)), 2), head_dim)


store_key, store_value = load("pages", {"store_key": _store_key, "store_value": _store_value})
"""`store_key(source, factors, head, slot, head_dim)`: write the key float32[head_dim] at `source`
as token `slot` (0 .. 15) of a page's `head`; `factors`: what `rope_factors` wrote for the
position, or 0 for no rotation. `store_value(source, head, slot, head_dim)`: likewise a value."""
