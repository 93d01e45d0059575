"""Float32 matrices into GGUF's formats, those included that the gguf package only reads.

The K formats get the plainest quantiser that is right: scales from the extremes of each group, no
search for better ones. What is compared later are two ways to compute with the same codes.
"""

from __future__ import annotations

from collections.abc import Callable

import gguf
import numpy as np
from numpy.typing import NDArray

from pie.model.packed.blocks import FORMATS

Array = NDArray[np.float32]
Bytes = NDArray[np.uint8]

_SUPER = 256
"""Values of a block of the K formats."""
_HIGHEST = 63
"""Largest 6-bit scale."""

_INSTEAD = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""What llama.cpp takes for rows that are no multiple of 256."""


def format_for(wanted: str, inputs: int) -> str:
    """`wanted`, or what stands in for it where rows are too short for it."""
    return _INSTEAD[wanted] if wanted in _INSTEAD and inputs % _SUPER else wanted


def quantise(values: Array, format: str) -> Bytes:
    """[outputs, inputs] as [outputs, bytes of a row]."""
    if format in _K:
        blocks = values.reshape(len(values), -1, _SUPER)
        return _K[format](blocks).view(np.uint8).reshape(len(values), -1)
    raw = gguf.quants.quantize(values, gguf.GGMLQuantizationType[format])
    return np.ascontiguousarray(raw).view(np.uint8).reshape(len(values), -1)


def _q4_k(blocks: Array) -> NDArray[np.void]:
    out, codes = _with_minima(blocks, "Q4_K", 15)
    out["q"] = _nibbles(codes)
    return out


def _q5_k(blocks: Array) -> NDArray[np.void]:
    out, codes = _with_minima(blocks, "Q5_K", 31)
    out["q"] = _nibbles(codes & np.uint8(15))
    fifth = (codes >> 4) << np.arange(8, dtype=np.uint8)[:, None]  # [rows, blocks, 8, 32]
    out["h"] = np.bitwise_or.reduce(fifth, axis=2).view(np.uint32)
    return out


def _nibbles(codes: Bytes) -> NDArray[np.uint32]:
    """[rows, blocks, 8, 32] to four times 32 bytes, two groups in each."""
    both: Bytes = codes[:, :, 0::2] | (codes[:, :, 1::2] << np.uint8(4))
    return both.view(np.uint32)


def _with_minima(blocks: Array, format: str, highest: int) -> tuple[NDArray[np.void], Bytes]:
    """Blocks with everything but their codes, and the codes [rows, blocks, 8, 32]."""
    groups = blocks.reshape(*blocks.shape[:2], 8, 32)
    low = np.minimum(groups.min(-1), 0.0)
    scales, minima = (groups.max(-1) - low) / highest, -low
    out = np.zeros(blocks.shape[:2], FORMATS[format].structure)
    out["d"] = scales.max(-1) / _HIGHEST
    out["dmin"] = minima.max(-1) / _HIGHEST
    scale_codes = _six_bits(scales, out["d"])
    minimum_codes = _six_bits(minima, out["dmin"])
    out["s"] = _packed_scales(scale_codes, minimum_codes)
    scale = out["d"].astype(np.float32)[..., None] * scale_codes
    minimum = out["dmin"].astype(np.float32)[..., None] * minimum_codes
    exact = (groups + minimum[..., None]) * _inverse(scale)[..., None]
    return out, np.clip(np.rint(exact), 0, highest).astype(np.uint8)


def _six_bits(values: Array, unit: NDArray[np.float16]) -> Bytes:
    steps = values * _inverse(unit.astype(np.float32))[..., None]
    codes: Bytes = np.clip(np.rint(steps), 0, _HIGHEST).astype(np.uint8)
    return codes


def _packed_scales(scales: Bytes, minima: Bytes) -> Bytes:
    """Twice 8 codes of 6 bits in 12 bytes, as `pie.model.packed.blocks` reads them."""
    a = scales[..., :4] | ((scales[..., 4:] >> 4) << 6)
    b = minima[..., :4] | ((minima[..., 4:] >> 4) << 6)
    c = (scales[..., 4:] & 15) | ((minima[..., 4:] & 15) << 4)
    packed: Bytes = np.concatenate([a, b, c], axis=-1)
    return packed


def _q6_k(blocks: Array) -> NDArray[np.void]:
    groups = blocks.reshape(*blocks.shape[:2], 16, 16)
    scales = np.abs(groups).max(-1) / 31
    out = np.zeros(blocks.shape[:2], FORMATS["Q6_K"].structure)
    out["d"] = scales.max(-1) / 127
    unit = out["d"].astype(np.float32)
    out["s"] = np.clip(np.rint(scales * _inverse(unit)[..., None]), 0, 127)
    scale = unit[..., None] * out["s"]
    codes = np.clip(np.rint(groups * _inverse(scale)[..., None]), -32, 31) + 32
    parts = codes.astype(np.uint8).reshape(*blocks.shape[:2], 2, 4, 32)  # halves, groups
    nibbles = parts & 15
    low = nibbles[..., :2, :] | (nibbles[..., 2:, :] << 4)  # groups 0, 1 and above them 2, 3
    out["l"] = low.reshape(*blocks.shape[:2], 128)
    upper = (parts >> 4) << np.array([0, 2, 4, 6], np.uint8)[:, None]
    out["h"] = np.bitwise_or.reduce(upper, axis=3).reshape(*blocks.shape[:2], 64)
    return out


def _inverse(values: Array) -> Array:
    with np.errstate(divide="ignore"):
        inverse: Array = np.where(values > 0, 1 / values, 0).astype(np.float32)
    return inverse


_K: dict[str, Callable[[Array], NDArray[np.void]]] = {"Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k}
