"""Matrices of floats: quantised to 8 bits as ggml's Q8_0 does, or rounded to bfloat16."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pie.kernels.cpu.layout import Kind

from .place import Coded

_LARGEST = 127
_INFINITE = np.uint16(0x7F80)
_HALF_STEP_BF16 = 2.0**-9


def widened(raw: NDArray[np.uint8], format: str) -> NDArray[np.float32]:
    """F32, F16 or BF16 in contiguous bytes: a copy as float32, its last axis in values."""
    match format:
        case "F32":
            return raw.view(np.float32).copy()
        case "F16":
            return raw.view(np.float16).astype(np.float32)
        case _:
            return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def coded_q8(values: NDArray[np.float32]) -> Coded:
    """Quantise float32 [rows, groups, 32]; bit for bit ggml's quantize_row_q8_0_ref.

    d is the largest magnitude over 127, codes are rounded (halves away from zero) by d before d
    becomes a half: half a step of error, and what the half is off.
    """
    size = _largest(values)
    scale = size / np.float32(_LARGEST)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inverse = np.where(scale > 0, 1 / scale, 0)
        halves = scale.astype(np.float16)
        off = scale / 2 + np.abs(halves.astype(np.float32) - scale) * _LARGEST
        codes = _rounded(values, inverse)
    return Coded(Kind.Q8, codes.view(np.uint32), halves, error=relative_error(off, size))


def _largest(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Largest magnitude of each group."""
    kernels = compiled_kernels()
    if kernels is None:
        largest: NDArray[np.float32] = np.abs(values).max(axis=-1)
        return largest
    bits = np.empty(values.shape[:-1], np.int32)
    kernels.largest(values.view(np.int32).reshape(-1, 32), bits.reshape(-1))
    return bits.view(np.float32)


def _rounded(values: NDArray[np.float32], inverse: NDArray[np.float32]) -> NDArray[np.int8]:
    """Signed bytes [rows, groups, 32]."""
    kernels = compiled_kernels()
    if kernels is None:
        exact = values * inverse[..., None]
        whole = np.trunc(exact)
        whole += np.trunc(2 * (exact - whole))
        return np.asarray(whole, np.int8)
    codes = np.empty(values.shape, np.int8)
    kernels.rounded(values.reshape(-1, 32), inverse.reshape(-1), codes.reshape(-1, 32))
    return codes


@cache
def compiled_kernels() -> Any:
    """The module `pie.kernels.cpu.quantising`, or None without the extra [cpu]."""
    try:
        from pie.kernels.cpu import quantising
    except ImportError:
        return None
    return quantising


def coded_bf16(values: NDArray[np.float32]) -> Coded:
    """Round float32 [rows, groups, 32] to the nearest bfloat16, ties to even."""
    bits = values.view(np.uint32)
    rounded = ((bits + ((bits >> 16) & 1) + 0x7FFF) >> 16).astype(np.uint16)
    finite = not ((rounded & _INFINITE) == _INFINITE).any()
    error = _HALF_STEP_BF16 if finite else math.inf
    return Coded(Kind.BF16, rounded.view(np.uint32), error=error)


def relative_error(off: NDArray[np.float32], size: NDArray[np.float32]) -> float:
    """Largest `off` / `size`; where `size` is 0, so is what was made of it."""
    return float(np.max(off / np.where(size > 0, size, 1), initial=0.0))
