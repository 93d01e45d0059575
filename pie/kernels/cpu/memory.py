"""Single numbers in memory, for compiled functions: `read64(address)`, `write64(address, x)`.

Whole numbers are int64 there; 32-bit ones are signed in memory, 16-bit ones are not.
"""

from __future__ import annotations

from .emit import F32, I16, I32, I64, Emit, Value
from .inlined import kernel
from .shapes import Number
from .target import named


def _read64(e: Emit, address: Value) -> Value:
    return e.load(I64, address)


def _read32(e: Emit, address: Value) -> Value:
    return e.b.sext(e.load(I32, address), I64)


def _read16(e: Emit, address: Value) -> Value:
    return e.b.zext(e.load(I16, address), I64)


def _read_float(e: Emit, address: Value) -> Value:
    return e.load(F32, address)


def _write64(e: Emit, address: Value, value: Value) -> None:
    e.store(value, address)


def _write16(e: Emit, address: Value, value: Value) -> None:
    e.store(e.b.trunc(value, I16), address)


_ANY = named("portable8")  # there are no vectors here
read64, read32, read16 = (kernel(_ANY, f, Number.INT) for f in (_read64, _read32, _read16))
read_float = kernel(_ANY, _read_float, Number.SINGLE)
write64, write16 = kernel(_ANY, _write64), kernel(_ANY, _write16)
write_float = kernel(_ANY, _write64)
