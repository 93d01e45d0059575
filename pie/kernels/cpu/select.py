"""The k-th largest of many logits, or the one at which the heaviest reach a share of the mass.

A radix selection: the sums of weights by the highest bits of the keys show which bits the wanted
one has; only those that share them are looked at again. Nothing is sorted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import compiled
from .memory import read_float, write64, write_float
from .sampling_ops import (
    LANES,
    bit_count,
    digits,
    get_double,
    inside,
    inside_one,
    lowest_bit,
    tally,
    weigh,
)

CHUNK = 512
"""Values that a pass works on before it goes on; what it notes of them stays in the cache."""

LOWEST, HIGHEST = -(1 << 31), (1 << 31) - 1
"""Bounds of keys."""

_DIGIT = 11
"""Bits of a key that are looked at in one pass."""

TABLE_BYTES = 2 * 8 << _DIGIT
BLOCKS = TABLE_BYTES + 8 * CHUNK
"""Where, in the scratch memory, the table and what is noted of a chunk end."""

ALIKE = np.float32(0.0)
"""The `scale` with which every weight is 1."""

LARGEST = 3.4028234663852886e38
"""Of float32."""


@compiled
def scale_of(temperature: Any) -> np.float32:
    """2 / temperature, as weights take it; finite."""
    return np.float32(min(2.0 / np.float64(temperature), LARGEST))


@compiled
def _tally_all(
    values: Any, count: Any, peak: Any, scale: Any, shift: Any, mask: Any, table: Any
) -> float:
    """Fill `table` with the weights by digit; their sum. Scratch memory up to BLOCKS follows it."""
    chunk_digits, chunk_weights = table + TABLE_BYTES, table + TABLE_BYTES + 4 * CHUNK
    for i in range(2 * (mask + 1)):
        write64(table + 8 * i, 0)
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        digits(values + 4 * start, size, shift, mask, chunk_digits)
        weigh(values + 4 * start, 0, size, peak, scale, LOWEST, CHUNK, chunk_weights)
        tally(chunk_digits, chunk_weights, size, table)
    total = 0.0
    for i in range(2 * (mask + 1)):
        total += get_double(table + 8 * i)
    return total


@compiled
def _crossing(table: Any, mask: Any, above: Any, goal: Any) -> tuple[int, float]:
    """The digit whose weights, added to the larger ones and `above`, reach `goal`.

    With the sum before it. When rounding keeps all from reaching it: the lowest that has weight.
    """
    found, before = 0, above
    for back in range(mask + 1):
        digit = mask - back
        weight = get_double(table + 16 * digit) + get_double(table + 16 * digit + 8)
        if weight > 0:
            found, before = digit, above
            above += weight
            if above >= goal:
                break
    return found, before


@compiled
def collect(values: Any, count: Any, low: Any, high: Any, out: Any) -> int:
    """The values whose keys are in low .. high to `out`, which may be `values`; their number."""
    found = 0
    whole = count // LANES * LANES
    for i in range(0, whole, LANES):
        bits = inside(values + 4 * i, low, high)
        while bits:
            write_float(out + 4 * found, read_float(values + 4 * (i + lowest_bit(bits))))
            found += 1
            bits &= bits - 1
    for i in range(whole, count):
        if inside_one(values + 4 * i, low, high):
            write_float(out + 4 * found, read_float(values + 4 * i))
            found += 1
    return found


@compiled
def select(
    values: Any, count: Any, peak: Any, scale: Any, goal: Any, table: Any, space: Any
) -> tuple[int, float, int, float]:
    """The key at which the weights, summed from the largest value down, reach `goal`.

    A `goal` below 1 is a share of all; with the `scale` ALIKE every weight is 1. Also the sum of
    all larger values, and how many have the key. Uses `table`, and `space` [count] float32.
    """
    low, above, shift = 0, 0.0, 32
    for width in (_DIGIT, _DIGIT, 32 - 2 * _DIGIT):
        shift -= width
        mask = (1 << width) - 1
        total = _tally_all(values, count, peak, scale, shift, mask, table)
        if shift == 32 - _DIGIT and goal < 1:
            goal *= total
        digit, above = _crossing(table, mask, above, goal)
        low += digit << shift
        first = low + LOWEST
        count = collect(values, count, first, first + (1 << shift) - 1, space)
        values = space
    return low + LOWEST, above, count, goal


@compiled
def last_of(logits: Any, vocabulary: Any, key: Any, room: Any) -> int:
    """The id of the `room`-th logit with this key."""
    for i in range(0, vocabulary // LANES * LANES, LANES):
        bits = inside(logits + 4 * i, key, key)
        here = bit_count(bits)
        if here >= room:
            for _ in range(room - 1):
                bits &= bits - 1
            return int(i + lowest_bit(bits))
        room -= here
    for i in range(vocabulary // LANES * LANES, vocabulary):
        room -= inside_one(logits + 4 * i, key, key)
        if room == 0:
            return i
    return int(vocabulary)
