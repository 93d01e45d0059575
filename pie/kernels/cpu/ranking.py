"""The most probable tokens of a row of logits, in order (S2)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import compiled, staged
from .memory import read64, read_float, write64, write_float
from .sampling_ops import (
    LANES,
    best,
    finite,
    get_double,
    inside,
    inside_one,
    key,
    lowest_bit,
    mass,
    multiply,
    put_int,
    value,
    weigh,
)
from .select import ALIKE, BLOCKS, CHUNK, HIGHEST, LOWEST, last_of, scale_of, select
from .sort import sort


@compiled
def _gather(logits: Any, vocabulary: Any, floor: Any, last: Any, out: Any) -> int:
    """What is kept to `out`, as int64 that sort by key, the largest first; their number."""
    found = 0
    for start in range(0, vocabulary, LANES):
        width = min(LANES, vocabulary - start)
        if width == LANES:
            bits = inside(logits + 4 * start, floor, HIGHEST)
        else:
            bits = 0
            for i in range(width):
                bits |= inside_one(logits + 4 * (start + i), floor, HIGHEST) << i
        while bits:
            token = start + lowest_bit(bits)
            bits &= bits - 1
            its_key = key(read_float(logits + 4 * token))
            if its_key > floor or token <= last:
                write64(out + 8 * found, ((HIGHEST - its_key) << 32) | token)
                found += 1
    return found


@compiled
def _to_probabilities(
    logits: Any,
    vocabulary: Any,
    peak: Any,
    temperature: Any,
    values: Any,
    count: Any,
    scratch: Any,
) -> None:
    """Logits in `values` [count], the largest first, become probabilities over `logits`."""
    if temperature == 0:
        for i in range(count):
            write_float(values + 4 * i, np.float32(1.0 if i == 0 else 0.0))
        return
    scale = scale_of(temperature)
    mass(logits, 0, vocabulary, peak, scale, LOWEST, vocabulary, scratch)
    weigh(values, 0, count, peak, scale, LOWEST, count, values)
    multiply(values, count, 1.0 / get_double(scratch))


@staged
def rank(
    logits: int,
    vocabulary: int,
    temperature: float,
    k: int,
    ids_out: int,
    probabilities_out: int,
    scratch: int,
) -> int:
    """The min(k, vocabulary) most probable tokens of a row, in order (S2); their number.

    0 if it is not finite. `ids_out` is int32, `probabilities_out` float32.
    """
    if k <= 0 or not finite(logits, vocabulary):
        return 0
    peak = read_float(logits + 4 * best(logits, vocabulary))
    items = scratch + BLOCKS + 8 * -(-vocabulary // CHUNK)
    floor, last = LOWEST, vocabulary
    if k < vocabulary:
        goal = float(k)
        floor, above, equal, goal = select(logits, vocabulary, peak, ALIKE, goal, scratch, items)
        if k - int(above) < equal:
            last = last_of(logits, vocabulary, floor, k - int(above))
    count = _gather(logits, vocabulary, floor, last, items)
    items = sort(items, count, items + 8 * vocabulary, scratch)
    for i in range(count):
        item = read64(items + 8 * i)
        put_int(ids_out + 4 * i, item)
        write_float(probabilities_out + 4 * i, value(HIGHEST - ((item >> 32) & 0xFFFFFFFF)))
    _to_probabilities(logits, vocabulary, peak, temperature, probabilities_out, count, scratch)
    return count
