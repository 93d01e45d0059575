"""What the vector passes of sampling are made of.

Weights are `exp((logit - peak) / temperature)`, in float32 with sums in float64, and zero below
e^-87. Logits are compared as *keys*: their bits as 32-bit integers in the order of the values,
both zeros being one key. A pass takes any count, whole vectors first, then single values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from .emit import I32, I64, Emit, Value, const, vector


def sweep(e: Emit, count: Value, body: Callable[[int, Value], None]) -> None:
    """`body(width, i)` from value i on, for whole vectors and then for single values."""
    b = e.b
    whole = b.lshr(count, const(I64, e.lanes.bit_length() - 1))
    rest = b.and_(count, const(I64, e.lanes - 1))
    for width, times, start in ((e.lanes, whole, 0), (1, rest, b.sub(count, rest))):

        def step(i: Value, _: Any, width: int = width, start: Value | int = start) -> list[Value]:
            body(width, e.at(b.mul(i, const(I64, width)), start))
            return []

        def loop(times: Value = times, step: Any = step) -> None:
            e.loop(times, [], step)

        e.when(b.icmp_signed(">", times, const(I64, 0)), loop)


class Sums:
    """Variables that a sweep adds to, by width: `kind` is that of their lanes."""

    def __init__(self, e: Emit, kind: Any, start: float) -> None:
        self.b = e.b
        self._slots = {}
        for width in (e.lanes, 1):
            value = const(vector(kind, width), start)
            with e.b.goto_entry_block():
                self._slots[width] = e.b.alloca(value.type)
            e.b.store(value, self._slots[width])

    def __getitem__(self, width: int) -> Value:
        return self.b.load(self._slots[width])

    def __setitem__(self, width: int, value: Value) -> None:
        self.b.store(value, self._slots[width])


def ids_from(e: Emit, width: int, i: Value) -> Value:
    """i, i + 1, ... in lanes."""
    counted = ir.Constant(vector(I32, width), list(range(width)))
    return e.b.add(e.splat(e.b.trunc(i, I32), width), counted)


def key_of(e: Emit, x: Value) -> Value:
    b, kind = e.b, vector(I32, x.type.count)
    bits = b.bitcast(b.fadd(x, const(x.type, 0.0)), kind)  # -0 + 0 is 0
    return b.xor(bits, b.lshr(b.ashr(bits, const(kind, 31)), const(kind, 1)))


def weight_of(e: Emit, x: Value, peak: Value, scale: Value) -> Value:
    """Weights of logits; `scale` is 2 / temperature: halves cannot overflow when subtracted."""
    b, half = e.b, const(x.type, 0.5)
    width = x.type.count
    below = b.fsub(b.fmul(x, half), b.fmul(e.splat(peak, width), half))
    power = b.fmul(below, e.splat(scale, width))
    some = b.fcmp_ordered(">=", power, const(x.type, -87.0))
    return b.select(some, e.exp(power), const(x.type, 0.0))


def is_kept(e: Emit, x: Value, ids: Value, floor: Value, last: Value) -> Value:
    """Where the key is above `floor`, or is it and the id is at most `last`."""
    b, width = e.b, x.type.count
    late = b.icmp_signed(">", ids, e.splat(b.trunc(last, I32), width))
    least = b.sub(e.splat(b.trunc(floor, I32), width), b.sext(late, ids.type))
    return b.icmp_signed(">=", key_of(e, x), least)


def capped(e: Emit, x: Value, cap: Value) -> Value:
    """cap * tanh(x / cap), what is not a number staying so."""
    b, kind = e.b, x.type
    limit = e.splat(cap, kind.count)
    one = const(kind, 1.0)
    shrunk = e.exp(b.fmul(const(kind, -2.0), e.absolute(b.fdiv(x, limit))))
    size = b.fmul(limit, b.fdiv(b.fsub(one, shrunk), b.fadd(one, shrunk)))
    signed = e.overloaded("copysign", kind, size, x)
    return b.select(b.fcmp_unordered("uno", x, x), x, signed)
