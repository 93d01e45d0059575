"""One row of a packed matrix as float32: the embedding of a token."""

from __future__ import annotations

from functools import partial

from llvmlite import ir

from .dot import lower, upper
from .emit import F16, F32, I8, I32, I64, Emit, Value, const, vector
from .layout import BLOCK, GROUP, GROUP_BYTES, Kind

_LINE = 64


def emit_embed(
    e: Emit, kind: Value, data: Value, inputs: Value, token: Value, out: Value, scale: float
) -> None:
    """out[inputs] = scale * the row `token` of the matrix at `data`."""
    b = e.b
    groups = b.sdiv(inputs, const(I64, GROUP))
    block, lane = b.sdiv(token, const(I64, BLOCK)), b.srem(token, const(I64, BLOCK))

    def row(known: Kind) -> None:
        start = e.at(data, b.mul(block, groups), GROUP_BYTES[known])

        def group(i: Value, _: list[Value]) -> list[Value]:
            values = _group(e, known, start, groups, i, lane)
            factor = e.splat(scale, GROUP)
            e.store(b.fmul(values, factor), e.at(out, i, 4 * GROUP))
            return []

        e.loop(groups, [], group)

    for known in Kind:
        e.when(b.icmp_signed("==", kind, const(I64, known)), partial(row, known))


def _group(e: Emit, kind: Kind, start: Value, groups: Value, i: Value, lane: Value) -> Value:
    """Group i of an output of the block at `start`: 32 float32."""
    b, bytes16, floats = e.b, vector(I8, 16), vector(F32, GROUP)
    half = e.at(start, lane, 2)
    if kind is Kind.BF16:
        words = _words(e, e.at(e.at(start, i, 16 * _LINE), lane, 4), 16)
        order = [index for pair in range(16) for index in (pair, 16 + pair)]
        return b.shuffle_vector(lower(e, words), upper(e, words), _indices(order))
    if kind is Kind.Q4:
        at = e.at(start, i, GROUP_BYTES[kind])
        packed = b.bitcast(_words(e, e.at(at, lane, 4), 4), bytes16)
        low, high = b.and_(packed, const(bytes16, 15)), b.lshr(packed, const(bytes16, 4))
        codes = b.uitofp(b.shuffle_vector(low, high, _indices(list(range(GROUP)))), floats)
        d = m = e.at(e.at(half, i, GROUP_BYTES[kind]), 4 * _LINE)
        return e.fma(codes, _half(e, d), _half(e, m, 2 * BLOCK))
    packed = b.bitcast(_words(e, e.at(e.at(start, i, 8 * _LINE), lane, 4), 8), vector(I8, GROUP))
    codes, scales = b.sitofp(packed, floats), e.at(half, groups, 8 * _LINE)
    d = _half(e, e.at(scales, i, 2 * BLOCK))
    if kind is Kind.Q8:
        return b.fmul(codes, d)
    return e.fma(codes, d, _half(e, e.at(e.at(scales, groups, 2 * BLOCK), i, 2 * BLOCK)))


def _indices(order: list[int]) -> Value:
    return ir.Constant(vector(I32, len(order)), order)


def _words(e: Emit, address: Value, count: int) -> Value:
    """The same 32-bit word of `count` lines."""
    words = ir.Constant(vector(I32, count), ir.Undefined)
    for line in range(count):
        word = e.load(I32, address, line * _LINE)
        words = e.b.insert_element(words, word, const(I32, line))
    return words


def _half(e: Emit, address: Value, offset: int = 0) -> Value:
    """A float16 from memory as 32 float32."""
    return e.splat(e.b.fpext(e.load(F16, address, offset), F32), GROUP)
