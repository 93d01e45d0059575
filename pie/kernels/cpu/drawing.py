"""Drawing a token from a row of logits: filters, then a running sum up the ids (S1, S3)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .jit import compiled, staged
from .memory import read_float, write_float
from .sampling_ops import best, finite, get_double, key, mass, value, weigh, weight
from .select import (
    ALIKE,
    BLOCKS,
    CHUNK,
    HIGHEST,
    LARGEST,
    LOWEST,
    TABLE_BYTES,
    collect,
    last_of,
    scale_of,
    select,
)


@compiled
def _room(above: Any, goal: Any, weight: Any, equal: Any) -> int:
    """How many of `equal` tokens of `weight` it takes to get from `above` to `goal`."""
    if weight <= 0:
        return int(equal)
    return int(min(max(math.ceil((goal - above) / weight), 1.0), np.float64(equal)))


@compiled
def _min_p_floor(peak: Any, temperature: Any, min_p: Any) -> int:
    """The lowest key whose weight is at least `min_p` > 0: found without weights, so exactly."""
    least = np.float64(peak) + np.float64(temperature) * math.log(np.float64(min_p))
    near = np.float32(max(least, -LARGEST))
    return int(key(near) + (1 if np.float64(near) < least else 0))


@compiled
def _filtered(
    logits: Any,
    vocabulary: Any,
    peak: Any,
    scale: Any,
    top_k: Any,
    top_p: Any,
    table: Any,
    space: Any,
) -> tuple[int, int]:
    """What top-k, then top-p keep: keys above a floor and, where they are it, ids up to a last."""
    floor, last = LOWEST, vocabulary
    values, count = logits, vocabulary
    if 0 < top_k < vocabulary:
        goal = float(top_k)
        floor, above, equal, goal = select(logits, vocabulary, peak, ALIKE, goal, table, space)
        room = top_k - int(above)
        if room < equal:
            last = last_of(logits, vocabulary, floor, room)
        if top_p < 1:
            values = space
            count = collect(logits, vocabulary, floor + 1, HIGHEST, space)
            for i in range(count, count + room):
                write_float(space + 4 * i, value(floor))
            count += room
    if top_p < 1:
        goal = float(top_p)
        least, above, equal, goal = select(values, count, peak, scale, goal, table, space)
        room = _room(above, goal, weight(value(least), peak, scale), equal)
        if room < equal:
            last = last_of(logits, vocabulary, least, room)
        elif least != floor:  # else what top-k left of the equal ones stays
            last = vocabulary
        floor = least
    return floor, last


@compiled
def _drawn(
    logits: Any,
    vocabulary: Any,
    peak: Any,
    scale: Any,
    floor: Any,
    last: Any,
    uniform: Any,
    token: Any,
    scratch: Any,
) -> int:
    """The first kept token at which the running sum of weights exceeds `uniform` of it all.

    `token` if there is none, which finite logits do not allow.
    """
    chunk, blocks = scratch + TABLE_BYTES, scratch + BLOCKS
    total = 0.0
    for i in range(-(-vocabulary // CHUNK)):
        start = i * CHUNK
        row, size, out = logits + 4 * start, min(CHUNK, vocabulary - start), blocks + 8 * i
        mass(row, start, size, peak, scale, floor, last, out)
        total += get_double(out)
    target, running = np.float64(uniform) * total, 0.0
    for i in range(-(-vocabulary // CHUNK)):
        following = running + get_double(blocks + 8 * i)
        if following > target:
            start = i * CHUNK
            size = min(CHUNK, vocabulary - start)
            weigh(logits + 4 * start, start, size, peak, scale, floor, last, chunk)
            for j in range(size):
                weight_here = np.float64(read_float(chunk + 4 * j))
                if weight_here > 0:  # rounding may leave the sum of the block a little short
                    token = start + j
                    running += weight_here
                    if running > target:
                        break
            break
        running = following
    return int(token)


@staged
def draw(
    logits: int,
    vocabulary: int,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    uniform: float,
    scratch: int,
) -> int:
    """A token of a row, by the number `uniform` in [0, 1) (S1, S3); 0 if it is not finite."""
    if not finite(logits, vocabulary):
        return 0
    token = best(logits, vocabulary)
    if temperature == 0 or top_p <= 0 or min_p > 1 or top_k == 1:
        return int(token)
    peak, scale = read_float(logits + 4 * token), scale_of(temperature)
    blocks = scratch + BLOCKS
    space = blocks + 8 * -(-vocabulary // CHUNK)
    floor, last = _filtered(logits, vocabulary, peak, scale, top_k, top_p, scratch, space)
    if min_p > 0:
        least = _min_p_floor(peak, temperature, min_p)
        if least > floor:
            floor, last = least, vocabulary
    picked = _drawn(logits, vocabulary, peak, scale, floor, last, uniform, token, scratch)
    return int(picked)
