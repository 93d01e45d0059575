"""Memory that kernels read and write by address."""

from __future__ import annotations

import mmap
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

HUGE = 2 << 20
"""Bytes of a large page of the system."""


def reserve(size: int) -> NDArray[np.uint8]:
    """`size` zeroed bytes, aligned to and, where the system agrees, kept in large pages.

    Nothing of it is taken from the system before it is written.
    """
    block = mmap.mmap(-1, size + HUGE)
    with suppress(OSError, AttributeError):
        block.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(block, np.uint8)
    start = -whole.ctypes.data % HUGE
    return whole[start : start + size]


def address(array: NDArray[np.generic]) -> int:
    """Where the array's first element is; whoever uses it keeps the array alive."""
    return int(array.ctypes.data)
