"""Sorting what a distribution returns: a radix sort, least significant digit first."""

from __future__ import annotations

from typing import Any

from .jit import compiled
from .memory import read64, write64

_DIGIT = 11
_MASK = (1 << _DIGIT) - 1

TABLE_BYTES = 8 << _DIGIT


@compiled
def sort(items: Any, count: Any, spare: Any, table: Any) -> int:
    """Sort int64 `items` [count] by their upper halves, as unsigned; equal ones stay in order.

    The result is at the address that is returned, `items` or `spare` [count]. `table` has
    TABLE_BYTES of scratch.
    """
    for shift in (32, 32 + _DIGIT, 32 + 2 * _DIGIT):
        for i in range(_MASK + 1):
            write64(table + 8 * i, 0)
        for i in range(count):
            place = table + 8 * ((read64(items + 8 * i) >> shift) & _MASK)
            write64(place, read64(place) + 1)
        before = 0
        for i in range(_MASK + 1):
            here = read64(table + 8 * i)
            write64(table + 8 * i, before)
            before += here
        for i in range(count):
            item = read64(items + 8 * i)
            place = table + 8 * ((item >> shift) & _MASK)
            at = read64(place)
            write64(place, at + 1)
            write64(spare + 8 * at, item)
        items, spare = spare, items
    return int(items)
