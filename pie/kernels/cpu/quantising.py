"""The parts of packing weights that touch each of them as a float.

`pie.model.packed.floats` and `blocks` have the same in numpy, for machines without numba, and bit
for bit.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .jit import compiled
from .layout import GROUP

Ints: TypeAlias = NDArray[np.int32]
Floats: TypeAlias = NDArray[np.float32]


@compiled
def largest(bits: Ints, out: Ints) -> None:
    """Of each row of `bits` [groups, 32] of float32, the bits of the largest magnitude.

    Magnitudes are in the order of their bits, and what is not a number is above all.
    """
    for group in range(len(bits)):
        top = np.int32(0)
        for i in range(GROUP):
            top = max(top, bits[group, i] & np.int32(0x7FFFFFFF))
        out[group] = top


@compiled
def rounded(values: Floats, inverse: Floats, codes: NDArray[np.int8]) -> None:
    """values [groups, 32] times inverse [groups], to the nearest, halves away from zero."""
    for group in range(len(values)):
        factor = inverse[group]
        for i in range(GROUP):
            exact = values[group, i] * factor
            whole = np.trunc(exact)
            whole += np.trunc(np.float32(2) * (exact - whole))
            codes[group, i] = np.int8(whole)


@compiled
def values_q6_k(low: NDArray[Any], high: NDArray[Any], scales: Floats, out: Floats) -> None:
    """Blocks of 128 bytes of nibbles, 64 of upper bits and 16 scales, to 256 values."""
    for block in range(len(low)):
        for half in range(2):
            for group in range(4):
                nibble = np.uint8(4 * (group // 2))
                shift = np.uint8(2 * group)
                for part in range(2):
                    scale = scales[block, 8 * half + 2 * group + part]
                    for j in range(16):
                        i = 16 * part + j
                        bits = (low[block, 64 * half + 32 * (group % 2) + i] >> nibble) & 15
                        bits |= ((high[block, 32 * half + i] >> shift) & 3) << 4
                        value = np.float32(np.int32(bits) - 32)
                        out[block, 128 * half + 32 * group + i] = value * scale
