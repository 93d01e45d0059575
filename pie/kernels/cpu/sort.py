"""Sorting what a distribution returns: a radix sort, least significant digit first."""

from __future__ import annotations

from typing import Any

from .jit import compiled
from .sampling_ops import get_long, put

_DIGIT = 11
_MASK = (1 << _DIGIT) - 1

TABLE_BYTES = 8 << _DIGIT


@compiled
def sort(items: Any, count: Any, spare: Any, table: Any) -> Any:
    """Sort int64 `items` [count] by their upper halves, as unsigned; equal ones stay in order.

    The result is at the address that is returned, `items` or `spare` [count]. `table` has
    TABLE_BYTES of scratch.
    """
    for shift in (32, 32 + _DIGIT, 32 + 2 * _DIGIT):
        for i in range(_MASK + 1):
            put(table + 8 * i, 0)
        for i in range(count):
            place = table + 8 * ((get_long(items + 8 * i) >> shift) & _MASK)
            put(place, get_long(place) + 1)
        before = 0
        for i in range(_MASK + 1):
            here = get_long(table + 8 * i)
            put(table + 8 * i, before)
            before += here
        for i in range(count):
            item = get_long(items + 8 * i)
            place = table + 8 * ((item >> shift) & _MASK)
            at = get_long(place)
            put(place, at + 1)
            put(spare + 8 * at, item)
        items, spare = spare, items
    return items
