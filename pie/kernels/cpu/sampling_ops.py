"""The vector passes of sampling, which `select` and `sampling` join.

A pass reads `count` logits from an address on; `first` is the id of the first of them. `scale`
is that of `sampling_emit.weight_of`; `floor`, a key, and `last`, an id, say what is kept.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from .emit import F32, F64, I1, I32, I64, Emit, Value, const, vector
from .inlined import kernel
from .library import load
from .sampling_emit import Sums, capped, ids_from, is_kept, key_of, sweep, weight_of
from .shapes import Number
from .target import detect, named

TARGET = detect() or named("portable8")
LANES = TARGET.lanes

_INFINITY = 0x7F800000
"""Bits of float32 infinity: those of a finite magnitude are less."""

_ZERO = const(I32, 0)


def _finite(e: Emit, logits: Value, count: Value) -> Value:
    return _examine(e, logits, count, None)


def _cap(e: Emit, logits: Value, count: Value, cap: Value) -> Value:
    return _examine(e, logits, count, cap)


def _examine(e: Emit, logits: Value, count: Value, cap: Value | None) -> Value:
    b = e.b
    sizes = Sums(e, I32, 0)

    def step(width: int, i: Value) -> None:
        address, kind = e.at(logits, i, 4), vector(I32, width)
        x = e.load(vector(F32, width), address)
        if cap is not None:
            x = capped(e, x, cap)
            e.store(x, address)
        size, held = b.and_(b.bitcast(x, kind), const(kind, 0x7FFFFFFF)), sizes[width]
        sizes[width] = b.select(b.icmp_signed(">", size, held), size, held)

    sweep(e, count, step)
    largest = e.overloaded("vector.reduce.smax", I32, sizes[e.lanes])
    rest = b.extract_element(sizes[1], _ZERO)
    limit = const(I32, _INFINITY)
    finite = b.and_(b.icmp_signed("<", largest, limit), b.icmp_signed("<", rest, limit))
    return b.zext(finite, I64)


def _best(e: Emit, logits: Value, count: Value) -> Value:
    b = e.b
    tops, places = Sums(e, F32, float("-inf")), Sums(e, I32, 0)

    def step(width: int, i: Value) -> None:
        x = e.load(vector(F32, width), e.at(logits, i, 4))
        top = tops[width]
        more = b.fcmp_ordered(">", x, top)
        tops[width] = b.select(more, x, top)
        places[width] = b.select(more, ids_from(e, width, i), places[width])

    sweep(e, count, step)
    wide = tops[e.lanes]
    top = e.highest(wide)
    among = b.fcmp_ordered("==", wide, e.splat(top))
    place = b.select(among, places[e.lanes], const(places[e.lanes].type, 0x7FFFFFFF))
    place = e.overloaded("vector.reduce.smin", I32, place)
    late, late_place = (b.extract_element(part[1], _ZERO) for part in (tops, places))
    return b.zext(b.select(b.fcmp_ordered(">", late, top), late_place, place), I64)


def _mass(
    e: Emit,
    logits: Value,
    first: Value,
    count: Value,
    peak: float,
    scale: float,
    floor: Value,
    last: Value,
    out: Value,
) -> None:
    b = e.b
    sums = Sums(e, F64, 0.0)

    def step(width: int, i: Value) -> None:
        x = e.load(vector(F32, width), e.at(logits, i, 4))
        kept = is_kept(e, x, ids_from(e, width, b.add(first, i)), floor, last)
        weight = b.select(kept, weight_of(e, x, peak, scale), const(x.type, 0.0))
        sums[width] = b.fadd(sums[width], b.fpext(weight, vector(F64, width)))

    sweep(e, count, step)
    total = b.fadd(e.total(sums[e.lanes]), b.extract_element(sums[1], _ZERO))
    e.store(total, out)


def _weigh(
    e: Emit,
    logits: Value,
    first: Value,
    count: Value,
    peak: float,
    scale: float,
    floor: Value,
    last: Value,
    out: Value,
) -> None:
    b = e.b

    def step(width: int, i: Value) -> None:
        x = e.load(vector(F32, width), e.at(logits, i, 4))
        kept = is_kept(e, x, ids_from(e, width, b.add(first, i)), floor, last)
        weight = b.select(kept, weight_of(e, x, peak, scale), const(x.type, 0.0))
        e.store(weight, e.at(out, i, 4))

    sweep(e, count, step)


def _multiply(e: Emit, values: Value, count: Value, factor: float) -> None:
    def step(width: int, i: Value) -> None:
        address = e.at(values, i, 4)
        x = e.load(vector(F32, width), address)
        e.store(e.b.fmul(x, e.splat(factor, width)), address)

    sweep(e, count, step)


def _digits(e: Emit, values: Value, count: Value, shift: Value, mask: Value, out: Value) -> None:
    b = e.b

    def step(width: int, i: Value) -> None:
        key = key_of(e, e.load(vector(F32, width), e.at(values, i, 4)))
        kind = key.type
        rank = b.xor(key, const(kind, -(1 << 31)))  # of the lowest key 0
        digit = b.lshr(rank, e.splat(b.trunc(shift, I32), width))
        e.store(b.and_(digit, e.splat(b.trunc(mask, I32), width)), e.at(out, i, 4))

    sweep(e, count, step)


def _tally(e: Emit, digits: Value, weights: Value, count: Value, table: Value) -> None:
    b = e.b

    def step(i: Value, _: list[Value]) -> list[Value]:
        digit = b.zext(e.load(I32, e.at(digits, i, 4)), I64)
        # Two columns in turn, so that a sum need not wait for the one just before it.
        column = b.add(b.shl(digit, const(I64, 1)), b.and_(i, const(I64, 1)))
        address = e.at(table, column, 8)
        weight = b.fpext(e.load(F32, e.at(weights, i, 4)), F64)
        e.store(b.fadd(e.load(F64, address), weight), address)
        return []

    e.loop(count, [], step)


def _inside(width: int) -> Callable[[Emit, Value, Value, Value], Value]:
    def emit(e: Emit, values: Value, low: Value, high: Value) -> Value:
        b = e.b
        key = key_of(e, e.load(vector(F32, width), values))
        enough = b.icmp_signed(">=", key, e.splat(b.trunc(low, I32), width))
        both = b.and_(enough, b.icmp_signed("<=", key, e.splat(b.trunc(high, I32), width)))
        return b.zext(b.bitcast(both, ir.IntType(width)), I64)

    return emit


def _key(e: Emit, value: Value) -> Value:
    return e.b.sext(e.b.extract_element(key_of(e, e.splat(value, 1)), _ZERO), I64)


def _value(e: Emit, key: Value) -> Value:
    b = e.b
    bits = b.trunc(key, I32)
    return b.bitcast(b.xor(bits, b.lshr(b.ashr(bits, const(I32, 31)), const(I32, 1))), F32)


def _weight(e: Emit, value: Value, peak: Value, scale: Value) -> Value:
    weight = weight_of(e, e.splat(value, 1), peak, scale)
    return e.b.fpext(e.b.extract_element(weight, _ZERO), F64)


def _lowest_bit(e: Emit, bits: Value) -> Value:
    return e.overloaded("cttz", I64, bits, const(I1, 1))


def _bit_count(e: Emit, bits: Value) -> Value:
    return e.overloaded("ctpop", I64, bits)


def _get_double(e: Emit, address: Value) -> Value:
    return e.load(F64, address)


def _put_int(e: Emit, address: Value, value: Value) -> None:
    e.store(e.b.trunc(value, I32), address)


finite = kernel(TARGET, _finite, Number.INT)
"""(logits, count): 1 if all are finite, else 0."""
cap_and_check = kernel(TARGET, _cap, Number.INT)
"""(logits, count, cap): as `finite` of cap * tanh(logit / cap), which is put in place."""
best = kernel(TARGET, _best, Number.INT)
"""(logits, count): the id of the largest finite logit, of equal ones the lowest."""
mass, weigh, multiply, digits, tally = load(
    "sampling",
    {
        "sampling_mass": _mass,
        "sampling_weigh": _weigh,
        "sampling_multiply": _multiply,
        "sampling_digits": _digits,
        "sampling_tally": _tally,
    },
)
"""mass (logits, first, count, peak, scale, floor, last, out): the sum, in float64, of what is kept.

weigh (logits, first, count, peak, scale, floor, last, out): weights, 0 of what is not kept.
multiply (values, count, factor): in place.
digits (values, count, shift, mask, out): bits of the keys as int32.
tally (digits, weights, count > 0, table): table[digit, i % 2] += weights[i], in float64.
"""
inside = kernel(TARGET, _inside(LANES), Number.INT)
"""(values, low, high): bit i is set where the key of value i, of LANES, is in low .. high."""
inside_one = kernel(TARGET, _inside(1), Number.INT)
"""`inside` of one value."""
key = kernel(TARGET, _key, Number.INT)
value = kernel(TARGET, _value, Number.SINGLE)
"""The inverse of `key`."""
weight = kernel(TARGET, _weight, Number.FLOAT)
lowest_bit = kernel(TARGET, _lowest_bit, Number.INT)
bit_count = kernel(TARGET, _bit_count, Number.INT)
get_double = kernel(TARGET, _get_double, Number.FLOAT)
put_int = kernel(TARGET, _put_int)
