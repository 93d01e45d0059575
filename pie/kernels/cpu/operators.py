"""What Python's operators and a few functions do with numbers in compiled code.

As in Python, but that whole numbers wrap at 64 bits, that float32 stays float32 among itself, and
that a division of whole numbers by zero, or a shift by 64 or more, is not defined.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from llvmlite import ir

from .emit import I64, Emit
from .emit import Value as Bits
from .shapes import TYPES, Number, Value, cast, common

_FLOATS = {ast.Add: "fadd", ast.Sub: "fsub", ast.Mult: "fmul", ast.Div: "fdiv"}
_INTS = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.LShift: "shl",
    ast.RShift: "ashr",
    ast.BitAnd: "and_",
    ast.BitOr: "or_",
    ast.BitXor: "xor",
}
CONSTANT: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.LShift: operator.lshift,
}
"""What is done with constants when a function is compiled."""

_COMPARISONS = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}


def binary(b: Any, sign: ast.operator, left: Value, right: Value) -> Value:
    """`left sign right`."""
    kind = common(left.shape, right.shape)
    if isinstance(sign, ast.Div) and kind is Number.INT:
        kind = Number.FLOAT
    x, y = (cast(b, value, kind).parts[0] for value in (left, right))
    if kind is Number.INT and isinstance(sign, ast.FloorDiv | ast.Mod):
        return Value(kind, (_floored(b, x, y, remainder=isinstance(sign, ast.Mod)),))
    name = (_INTS if kind is Number.INT else _FLOATS).get(type(sign))
    if name is None:
        raise TypeError(f"{type(sign).__name__} is not for {kind}")
    return Value(kind, (getattr(b, name)(x, y),))


def _floored(b: Any, x: Bits, y: Bits, *, remainder: bool) -> Bits:
    """Division that rounds down; by a power of two it is a shift."""
    if isinstance(y, ir.Constant) and y.constant > 0 and y.constant & (y.constant - 1) == 0:
        if remainder:
            return b.and_(x, ir.Constant(I64, y.constant - 1))
        return b.ashr(x, ir.Constant(I64, y.constant.bit_length() - 1))
    zero, rest = ir.Constant(I64, 0), b.srem(x, y)
    below = b.and_(b.icmp_signed("!=", rest, zero), b.icmp_signed("<", b.xor(rest, y), zero))
    if remainder:
        return b.select(below, b.add(rest, y), rest)
    return b.sub(b.sdiv(x, y), b.zext(below, I64))


def compare(b: Any, comparison: ast.cmpop, left: Value, right: Value) -> Bits:
    """Whether `left comparison right`, a bit."""
    sign = _COMPARISONS.get(type(comparison))
    if sign is None:
        raise TypeError(f"{type(comparison).__name__} is no comparison of numbers")
    kind = common(left.shape, right.shape)
    x, y = (cast(b, value, kind).parts[0] for value in (left, right))
    if kind is Number.INT:
        return b.icmp_signed(sign, x, y)
    return (b.fcmp_unordered if sign == "!=" else b.fcmp_ordered)(sign, x, y)


def negative(b: Any, value: Value) -> Value:
    kind = common(value.shape, value.shape)
    (x,) = cast(b, value, kind).parts
    return Value(kind, ((b.neg if kind is Number.INT else b.fneg)(x),))


Builtin: TypeAlias = Callable[..., Value]
"""Of the emitter and the arguments' values."""


def _extreme(sign: str) -> Builtin:
    def of_two(e: Emit, left: Value, right: Value) -> Value:
        kind = common(left.shape, right.shape)
        x, y = (cast(e.b, value, kind).parts[0] for value in (left, right))
        later = e.b.icmp_signed if kind is Number.INT else e.b.fcmp_ordered
        return Value(kind, (e.b.select(later(sign, y, x), y, x),))

    return of_two


def _cast_to(kind: Number) -> Builtin:
    return lambda e, value: cast(e.b, value, kind)


def _of_float(intrinsic: str) -> Builtin:
    def function(e: Emit, value: Value) -> Value:
        (x,) = cast(e.b, value, Number.FLOAT).parts
        return Value(Number.FLOAT, (e.overloaded(intrinsic, TYPES[Number.FLOAT], x),))

    return function


BUILTINS: dict[Any, Builtin] = {
    min: _extreme("<"),
    max: _extreme(">"),
    int: _cast_to(Number.INT),
    bool: _cast_to(Number.BOOL),
    float: _cast_to(Number.FLOAT),
    np.float64: _cast_to(Number.FLOAT),
    np.float32: _cast_to(Number.SINGLE),
    math.ceil: _of_float("ceil"),
    math.log: _of_float("log"),
    math.cos: _of_float("cos"),
    math.sin: _of_float("sin"),
}
"""`math.ceil` gives a float here."""
