"""Kernels of a few instructions, emitted wherever compiled functions call them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from .emit import Emit
from .emit import Value as Bits
from .shapes import VOID, Number, Value, cast
from .target import Target


def as_bits(e: Emit, value: Value) -> Bits:
    """A number as kernels take it: whole ones as int64, others as float32."""
    whole = value.shape in (Number.BOOL, Number.INT)
    return cast(e.b, value, Number.INT if whole else Number.SINGLE).parts[0]


@attrs.frozen(eq=False)
class Kernel:
    """`emit(e, a, b, ...)` for compiled functions, as a function of (a, b, ...)."""

    _target: Target
    _emit: Callable[..., Bits | None]
    _result: Number | None

    def called(self, unit: object, e: Emit, values: Sequence[Value]) -> Value:
        """Emit it here."""
        bits = self._emit(Emit(e.b, self._target), *(as_bits(e, value) for value in values))
        return VOID if self._result is None else Value(self._result, (bits,))


def kernel(target: Target, emit: Callable[..., Bits | None], result: Number | None = None) -> Any:
    """`emit` made callable; `result` is what it returns, by default nothing."""
    return Kernel(target, emit, result)
