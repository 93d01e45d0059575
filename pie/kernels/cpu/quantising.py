"""The parts of packing weights that touch each of them as a float.

`pie.model.packed.floats` and `blocks` have the same in numpy, for machines without kernels, and
bit for bit.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .arrays import address
from .emit import F32, I8, I32, Emit, Value, const, vector
from .layout import GROUP
from .library import load

Ints: TypeAlias = NDArray[np.int32]
Floats: TypeAlias = NDArray[np.float32]

_BLOCK = 256
"""Values of a block of Q6_K: in halves of four groups, each of which has two scales."""


def _largest(e: Emit, bits: Value, out: Value, groups: Value) -> None:
    def group(i: Value, _: list[Value]) -> list[Value]:
        at, tops = e.at(bits, i, 4 * GROUP), const(e.I, 0)
        for offset in range(0, 4 * GROUP, 4 * e.lanes):
            size = e.b.and_(e.load(e.I, at, offset), const(e.I, 0x7FFFFFFF))
            tops = e.b.select(e.b.icmp_signed(">", size, tops), size, tops)
        e.store(e.overloaded("vector.reduce.smax", I32, tops), e.at(out, i, 4))
        return []

    e.loop(groups, [], group)


def _rounded(e: Emit, values: Value, inverse: Value, codes: Value, groups: Value) -> None:
    def trunc(x: Value) -> Value:
        return e.overloaded("trunc", e.F, x)

    def group(i: Value, _: list[Value]) -> list[Value]:
        factor = e.spread(F32, e.at(inverse, i, 4))
        for first in range(0, GROUP, e.lanes):
            exact = e.b.fmul(e.load(e.F, e.at(values, i, 4 * GROUP), 4 * first), factor)
            whole = trunc(exact)
            rest = trunc(e.b.fmul(const(e.F, 2.0), e.b.fsub(exact, whole)))
            numbers = e.b.fptosi(e.b.fadd(whole, rest), e.I)
            code = e.b.trunc(numbers, vector(I8, e.lanes))
            e.store(code, e.at(codes, i, GROUP), first)
        return []

    e.loop(groups, [], group)


def _values_q6_k(
    e: Emit, low: Value, high: Value, scales: Value, out: Value, blocks: Value
) -> None:
    b, bytes_ = e.b, vector(I8, e.lanes)

    def code(block: Value, half: int, group: int, first: int) -> Value:
        """A vector of codes from index `first` of a group on."""
        nibbles = e.load(bytes_, e.at(low, block, 128), 64 * half + 32 * (group % 2) + first)
        upper = e.load(bytes_, e.at(high, block, 64), 32 * half + first)
        nibbles = b.lshr(b.zext(nibbles, e.I), const(e.I, 4 * (group // 2)))
        upper = b.lshr(b.zext(upper, e.I), const(e.I, 2 * group))
        upper = b.shl(b.and_(upper, const(e.I, 3)), const(e.I, 4))
        return b.sub(b.or_(b.and_(nibbles, const(e.I, 15)), upper), const(e.I, 32))

    def each(block: Value, _: list[Value]) -> list[Value]:
        for first in range(0, _BLOCK, e.lanes):
            half, group, i = first // 128, first // 32 % 4, first % 32
            scale = e.spread(F32, e.at(scales, block, 64), 4 * (first // 16))
            value = b.fmul(b.sitofp(code(block, half, group, i), e.F), scale)
            e.store(value, e.at(out, block, 4 * _BLOCK), 4 * first)
        return []

    e.loop(blocks, [], each)


_largest_of, _round, _decode_q6_k = load(
    "quantising", {"largest": _largest, "rounded": _rounded, "values_q6_k": _values_q6_k}
)


def largest(bits: Ints, out: Ints) -> None:
    """Of each row of `bits` [groups, 32] of float32, the bits of the largest magnitude.

    Magnitudes are in the order of their bits, and what is not a number is above all.
    """
    if len(bits):
        bits = np.ascontiguousarray(bits)
        _largest_of(address(bits), _target(out), len(bits))


def rounded(values: Floats, inverse: Floats, codes: NDArray[np.int8]) -> None:
    """values [groups, 32] times inverse [groups], to the nearest, halves away from zero."""
    if len(values):
        values, inverse = np.ascontiguousarray(values), np.ascontiguousarray(inverse)
        _round(address(values), address(inverse), _target(codes), len(values))


def values_q6_k(low: NDArray[Any], high: NDArray[Any], scales: Floats, out: Floats) -> None:
    """Blocks of 128 bytes of nibbles, 64 of upper bits and 16 scales, to 256 values."""
    if len(low):
        arrays = [np.ascontiguousarray(part) for part in (low, high, scales)]
        _decode_q6_k(*(address(part) for part in arrays), _target(out), len(low))


def _target(out: NDArray[Any]) -> int:
    assert out.flags.c_contiguous
    return address(out)
