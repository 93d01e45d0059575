"""Philox4x32-10, the counter-based generator behind every sampled token (contract S3).

Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011. A draw is a
pure function of (key, counter), so it cannot depend on what else is in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .batch import Floats

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_MASK, _SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)
ROUNDS = 10

Words = NDArray[np.uint64]


def philox4x32(counters: Words, keys: Words) -> Words:
    """Four random words per row; `counters` [n, 4] and `keys` [n, 2] hold 32-bit values."""
    c0, c1, c2, c3 = (counters[:, i] for i in range(4))
    k0, k1 = keys[:, 0], keys[:, 1]
    for _ in range(ROUNDS):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (
            (p1 >> _SHIFT) ^ c1 ^ k0,
            p1 & _MASK,
            (p0 >> _SHIFT) ^ c3 ^ k1,
            p0 & _MASK,
        )
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return np.stack([c0, c1, c2, c3], axis=1)


def uniforms(draws: Sequence[tuple[int, int, int, int]] | NDArray[np.uint64]) -> Floats:
    """The uniform in [0, 1) of each (instance seed, queue, pass number in it, output slot).

    Key: the 64-bit seed, low word first. Counter: (queue, pass, slot, 0). The top 24 bits of the
    first word, so that the value is exact in float32 and never rounds up to 1.
    """
    if not len(draws):
        return np.zeros(0, dtype=np.float32)
    seeds, *counter = np.array(draws, dtype=np.uint64).T
    keys = np.stack([seeds & _MASK, seeds >> _SHIFT], axis=1)
    counters = np.stack([*(word & _MASK for word in counter), np.zeros_like(seeds)], axis=1)
    words = philox4x32(counters, keys)[:, 0]
    return ((words >> np.uint64(8)).astype(np.float64) / 2**24).astype(np.float32)
