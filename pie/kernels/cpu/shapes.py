"""Values of compiled functions: what they are made of, and arithmetic with them.

A number is a truth value, an int64, a float32 or a float64; whole numbers wrap. Beside numbers
there are arrays and records in memory, seen through a NumPy dtype, and tuples of values.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, TypeAlias

import attrs
import numpy as np
from llvmlite import ir

from .emit import F32, F64, I1, I8, I16, I32, I64
from .emit import Value as Bits


class Number(Enum):
    """Kinds of numbers."""

    BOOL = "bool"
    INT = "int"
    SINGLE = "float32"
    FLOAT = "float"


@attrs.frozen
class ArrayOf:
    """Values of `dtype` in memory, one behind the other: an address and a count."""

    dtype: np.dtype[Any]


@attrs.frozen
class RecordOf:
    """A record of `dtype` in memory: its address."""

    dtype: np.dtype[Any]


Shape: TypeAlias = "Number | ArrayOf | RecordOf | tuple[Shape, ...]"

TYPES = {Number.BOOL: I1, Number.INT: I64, Number.SINGLE: F32, Number.FLOAT: F64}
_IN_MEMORY = {"i1": I8, "i2": I16, "i4": I32, "i8": I64, "u1": I8, "u2": I16, "f4": F32, "f8": F64}


@attrs.frozen(eq=False)
class Value:
    """A shape, and the IR values it consists of."""

    shape: Shape
    parts: tuple[Bits, ...]


VOID = Value((), ())


def types_of(shape: Shape) -> list[Any]:
    """The IR types of a value's parts."""
    match shape:
        case Number():
            return [TYPES[shape]]
        case ArrayOf():
            return [I64, I64]
        case RecordOf():
            return [I64]
    return [kind for each in shape for kind in types_of(each)]


def lifted(constant: object) -> Value:
    """A constant of Python's; TypeError for what can be none."""
    match constant:
        case bool():
            return Value(Number.BOOL, (ir.Constant(I1, int(constant)),))
        case int():
            return Value(Number.INT, (ir.Constant(I64, int(constant)),))
        case _ if isinstance(constant, np.float32):
            return Value(Number.SINGLE, (ir.Constant(F32, float(constant)),))
        case float():
            return Value(Number.FLOAT, (ir.Constant(F64, constant),))
        case tuple():
            return joined([lifted(each) for each in constant])
    raise TypeError(f"{constant!r} is nothing that can be compiled")


def joined(values: Sequence[Value]) -> Value:
    """A tuple."""
    parts = tuple(part for value in values for part in value.parts)
    return Value(tuple(value.shape for value in values), parts)


def entries(value: Value) -> list[Value]:
    """What a tuple consists of."""
    if not isinstance(value.shape, tuple):
        raise TypeError(f"a tuple is needed here, not {value.shape}")
    parts = iter(value.parts)
    return [Value(s, tuple(next(parts) for _ in types_of(s))) for s in value.shape]


def common(left: Shape, right: Shape) -> Number:
    """The kind in which two numbers are added or compared, as NumPy has it."""
    if not isinstance(left, Number) or not isinstance(right, Number):
        raise TypeError(f"numbers are needed here, not {left} and {right}")
    kinds = {left, right}
    if kinds <= {Number.BOOL, Number.INT}:
        return Number.INT
    return Number.SINGLE if kinds == {Number.SINGLE} else Number.FLOAT


def fits(value: Value, shape: Shape) -> bool:
    """Whether a value can become one of `shape` without anybody's asking for it."""
    if isinstance(value.shape, Number) and isinstance(shape, Number):
        return value.shape is shape or common(value.shape, shape) is shape
    return value.shape == shape


def as_shape(b: Any, value: Value, shape: Shape) -> Value:
    """`value` as one of `shape`; TypeError if it is something else, or would lose something."""
    if not fits(value, shape):
        raise TypeError(f"{value.shape} where {shape} is needed")
    return cast(b, value, shape) if isinstance(shape, Number) else value


def cast(b: Any, value: Value, kind: Number) -> Value:
    """A number as another kind: floats are cut to whole numbers, and rounded to float32."""
    source, (bits,) = value.shape, value.parts or (None,)
    if not isinstance(source, Number):
        raise TypeError(f"a number is needed here, not {source}")
    floats = (Number.SINGLE, Number.FLOAT)
    if source is kind:
        return value
    if kind is Number.BOOL:
        return Value(kind, (is_true(b, value),))
    if source is Number.BOOL:
        value, source = Value(Number.INT, (b.zext(bits, I64),)), Number.INT
        return cast(b, value, kind)
    if source in floats and kind in floats:
        convert = b.fpext if kind is Number.FLOAT else b.fptrunc
    else:
        convert = b.sitofp if kind in floats else b.fptosi
    return Value(kind, (convert(bits, TYPES[kind]),))


def is_true(b: Any, value: Value) -> Bits:
    """Whether a number is not zero, as a bit."""
    (bits,) = value.parts
    match value.shape:
        case Number.BOOL:
            return bits
        case Number.INT:
            return b.icmp_signed("!=", bits, ir.Constant(I64, 0))
        case Number():
            return b.fcmp_unordered("!=", bits, ir.Constant(bits.type, 0.0))
    raise TypeError(f"{value.shape} is neither true nor false")


def _memory_type(dtype: np.dtype[Any]) -> Any:
    return _IN_MEMORY[dtype.str[1:]]


def load(b: Any, dtype: np.dtype[Any], address: Bits) -> Value:
    """What is at an address; of a record, the record itself."""
    if dtype.names is not None:
        return Value(RecordOf(dtype), (address,))
    kind = _memory_type(dtype)
    bits = b.load(b.inttoptr(address, kind.as_pointer()), align=1)
    if dtype.kind == "f":
        return Value(Number.SINGLE if kind is F32 else Number.FLOAT, (bits,))
    if kind is not I64:
        bits = b.zext(bits, I64) if dtype.kind == "u" else b.sext(bits, I64)
    return Value(Number.INT, (bits,))


def store(b: Any, dtype: np.dtype[Any], address: Bits, value: Value) -> None:
    """Put a number into memory: whole ones are cut to the bits there, floats are rounded."""
    kind = _memory_type(dtype)
    if dtype.kind == "f":
        (bits,) = cast(b, value, Number.SINGLE if kind is F32 else Number.FLOAT).parts
    else:
        if not fits(value, Number.INT):
            raise TypeError(f"{value.shape} is put where whole numbers are")
        (bits,) = cast(b, value, Number.INT).parts
        bits = bits if kind is I64 else b.trunc(bits, kind)
    b.store(bits, b.inttoptr(address, kind.as_pointer()), align=1)


def element(b: Any, array: Value, index: Value) -> tuple[np.dtype[Any], Bits]:
    """The dtype and the address of an array's element, which is not checked to exist."""
    if not isinstance(array.shape, ArrayOf) or index.shape is not Number.INT:
        raise TypeError(f"{array.shape} has no element {index.shape}")
    dtype = array.shape.dtype
    offset = b.mul(index.parts[0], ir.Constant(I64, dtype.itemsize))
    return dtype, b.add(array.parts[0], offset)


def field(b: Any, record: Value, name: str) -> tuple[np.dtype[Any], Bits]:
    """The dtype and the address of a record's field."""
    if not isinstance(record.shape, RecordOf):
        raise TypeError(f"{record.shape} has no field {name}")
    fields = record.shape.dtype.fields
    assert fields is not None
    if name not in fields:
        raise TypeError(f"the record has no field {name}")
    dtype, offset, *_ = fields[name]
    return dtype, b.add(record.parts[0], ir.Constant(I64, offset))
