"""Matrices of floats: quantised to 8 bits as ggml's Q8_0 does, or rounded to bfloat16."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pie.kernels.cpu.layout import Kind

from .place import Coded

_LARGEST = 127


def coded_q8(values: NDArray[np.float32]) -> Coded:
    """Quantise float32 [rows, groups, 32]; bit for bit ggml's quantize_row_q8_0_ref.

    d is the largest magnitude over 127, codes are rounded (halves away from zero) by d before d
    becomes a half.
    """
    size = np.abs(values).max(axis=-1)
    scale = size / np.float32(_LARGEST)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inverse = np.where(scale > 0, 1 / scale, 0)[..., None]
        halves = scale.astype(np.float16)
        exact = values * inverse
        codes = np.trunc(exact)
        codes += np.trunc(2 * (exact - codes))
        off = np.abs(values - codes * halves.astype(np.float32)[..., None]).max(axis=-1)
        words = codes.astype(np.int8).view(np.uint32)
    return Coded(Kind.Q8, words, halves, error=relative_error(off, size))


def coded_bf16(values: NDArray[np.float32]) -> Coded:
    """Round float32 [rows, groups, 32] to the nearest bfloat16, ties to even."""
    bits = values.view(np.uint32)
    rounded = (bits + ((bits >> 16) & 1) + 0x7FFF) >> 16
    with np.errstate(invalid="ignore"):  # an error that is no number says it
        off = np.abs((rounded << 16).view(np.float32) - values).max(axis=-1)
        error = relative_error(off, np.abs(values).max(axis=-1))
    return Coded(Kind.BF16, rounded.astype(np.uint16).view(np.uint32), error=error)


def relative_error(off: NDArray[np.float32], size: NDArray[np.float32]) -> float:
    """Largest `off` / `size`; where `size` is 0, so is what was made of it."""
    return float(np.max(off / np.where(size > 0, size, 1), initial=0.0))
