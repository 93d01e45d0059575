"""The quantised formats of GGUF, from the bytes of a file to the codes of the packed layout.

Formats as ggml defines them (ggml-common.h, ggml-quants.c: Q4_0 .. Q8_0 in blocks of 32 values,
the K formats in blocks of 256). Fields are read in place; no value passes through a float except
where a format has no packed form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.kernels.cpu.layout import Halves, Kind

from .floats import coded_q8, compiled_kernels, relative_error
from .place import Coded, Words

Blocks: TypeAlias = NDArray[np.void]
"""[rows, blocks of a row] of a format's structure."""

_LOW = np.uint32(0x0F0F0F0F)
_ONES = np.uint32(0x01010101)
_FOUR = np.uint32(4)


@attrs.frozen(eq=False)
class Format:
    """How a format lies in a file and what becomes of it."""

    structure: np.dtype[np.void]
    kind: Kind
    decode: Callable[[Blocks], Coded]


def _q4_0(blocks: Blocks) -> Coded:
    """d * (q - 8); 8 d is a half, too."""
    scales = blocks["d"]
    with np.errstate(over="ignore"):  # what is infinite is found with the other scales
        return Coded(Kind.Q4, blocks["q"], scales, scales * np.float16(-8))


def _q4_1(blocks: Blocks) -> Coded:
    return Coded(Kind.Q4, blocks["q"], blocks["d"], blocks["m"])


def _q5_0(blocks: Blocks) -> Coded:
    """d * (q - 16)."""
    codes = _five_bits(blocks).view(np.int8) - np.int8(16)
    return Coded(Kind.Q8, codes.view(np.uint32), blocks["d"])


def _q5_1(blocks: Blocks) -> Coded:
    """d * q + m, with q as it is: 31 is a signed byte."""
    return Coded(Kind.Q8M, _five_bits(blocks).view(np.uint32), blocks["d"], blocks["m"])


def _q8_0(blocks: Blocks) -> Coded:
    return Coded(Kind.Q8, blocks["q"], blocks["d"])


def _five_bits(blocks: Blocks) -> NDArray[np.uint8]:
    """[rows, groups, 32] of 0 .. 31: nibbles as in Q4, and a word with the fifth bits."""
    nibbles = blocks["q"]
    codes = np.concatenate([nibbles & 15, nibbles >> 4], axis=-1)
    codes |= np.unpackbits(blocks["h"], axis=-1, bitorder="little") << 4
    return codes


def _q4_k(blocks: Blocks) -> Coded:
    """Scales and minima are products of a half and 6 bits, which a half does not always hold.

    32 bytes have the low nibbles of one group and the high ones of the next; a Q4 group has its
    two halves in the nibbles of 16 bytes.
    """
    first, second = blocks["q"][..., :4], blocks["q"][..., 4:]
    low = (first & _LOW) | ((second & _LOW) << _FOUR)
    high = ((first >> _FOUR) & _LOW) | (second & ~_LOW)
    words = np.stack([low, high], axis=3)  # [rows, blocks, 4, 2, words]
    return Coded(Kind.Q4, _groups(words, 4), *_scales_k(blocks, 15))


def _q5_k(blocks: Blocks) -> Coded:
    """As Q4_K; bit i of 32 bytes is the fifth bit of group i."""
    nibbles, fifth = blocks["q"], blocks["h"]
    words = np.stack([nibbles & _LOW, (nibbles >> _FOUR) & _LOW], axis=3)
    words = words.reshape(*words.shape[:2], 8, 8)
    for group in range(8):
        words[:, :, group] |= ((fifth >> np.uint32(group)) & _ONES) << _FOUR
    return Coded(Kind.Q8M, _groups(words, 8), *_scales_k(blocks, 31))


def _groups(words: Words, count: int) -> Words:
    """All but rows and the words of a group become one axis."""
    return words.reshape(len(words), -1, count)


def _scales_k(blocks: Blocks, highest: int) -> tuple[Halves, Halves, float]:
    """Scales, minima and error of Q4_K and Q5_K, whose codes go up to `highest`.

    12 bytes hold 6 bits for each of 8 scales and 8 minima; the upper bits of the first eight
    bytes complete the second four of either.
    """
    a, b, c = (blocks["s"][..., i : i + 4] for i in (0, 4, 8))
    scale_codes = np.concatenate([a & 63, (c & 15) | ((a >> 6) << 4)], axis=-1)
    minimum_codes = np.concatenate([b & 63, (c >> 4) | ((b >> 6) << 4)], axis=-1)
    rows = len(blocks)
    exact = [
        (blocks[field].astype(np.float32)[..., None] * codes).reshape(rows, -1)
        for field, codes in (("d", scale_codes), ("dmin", minimum_codes))
    ]
    scale, minimum = exact[0], -exact[1]
    halves = _halves(scale), _halves(minimum)
    off_scale = halves[0].astype(np.float32) - scale
    off_minimum = halves[1].astype(np.float32) - minimum
    # The error is linear in the code, so that its ends have the largest.
    off = np.maximum(np.abs(off_minimum), np.abs(off_minimum + highest * off_scale))
    size = np.maximum(np.abs(minimum), np.abs(minimum + highest * scale))
    return *halves, relative_error(off, size)


def _q6_k(blocks: Blocks) -> Coded:
    """d * scale * (q - 32) with a scale for 16 values: quantised anew, 8 bits for 32.

    64 bytes of `l` and 32 of `h` have four groups: low nibbles of the first and the second 32,
    then the high ones; the upper two bits of group i are at bit 2 i.
    """
    scales = blocks["d"].astype(np.float32)[..., None] * blocks["s"]
    low, high = np.ascontiguousarray(blocks["l"]), np.ascontiguousarray(blocks["h"])
    values = np.empty((*blocks.shape, 256), np.float32)
    if kernels := compiled_kernels():
        flat = (part.reshape(-1, part.shape[-1]) for part in (low, high, scales, values))
        kernels.values_q6_k(*flat)
    else:
        _values_q6_k(low, high, scales, values)
    return coded_q8(values.reshape(len(blocks), -1, 32))


def _values_q6_k(
    low: NDArray[np.uint8],
    high: NDArray[np.uint8],
    scales: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """As `pie.kernels.cpu.quantising.values_q6_k`, on [rows, blocks, ...]."""
    shape = low.shape[:-1]
    nibbles = low.reshape(*shape, 2, 1, 2, 32)
    nibbles = np.concatenate([nibbles & 15, nibbles >> 4], axis=3).reshape(*shape, 2, 4, 32)
    upper = (high.reshape(*shape, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None]) & 3
    codes = (nibbles | (upper << 4)).view(np.int8) - np.int8(32)
    out.reshape(*shape, 16, 16)[...] = codes.reshape(*shape, 16, 16) * scales[..., None]


def _halves(values: NDArray[np.float32]) -> Halves:
    with np.errstate(over="ignore"):
        return values.astype(np.float16)


def _structure(*fields: tuple[Any, ...]) -> np.dtype[np.void]:
    return np.dtype([*fields])


_D, _M, _DMIN = ("d", "<f2"), ("m", "<f2"), ("dmin", "<f2")
_NIBBLES, _FIFTH = ("q", "u1", 16), ("h", "u1", 4)
_SCALES, _NIBBLES_K = ("s", "u1", 12), ("q", "<u4", (4, 8))

FORMATS = {
    "Q4_0": Format(_structure(_D, ("q", "<u4", 4)), Kind.Q4, _q4_0),
    "Q4_1": Format(_structure(_D, _M, ("q", "<u4", 4)), Kind.Q4, _q4_1),
    "Q5_0": Format(_structure(_D, _FIFTH, _NIBBLES), Kind.Q8, _q5_0),
    "Q5_1": Format(_structure(_D, _M, _FIFTH, _NIBBLES), Kind.Q8M, _q5_1),
    "Q8_0": Format(_structure(_D, ("q", "<u4", 8)), Kind.Q8, _q8_0),
    "Q4_K": Format(_structure(_D, _DMIN, _SCALES, _NIBBLES_K), Kind.Q4, _q4_k),
    "Q5_K": Format(_structure(_D, _DMIN, _SCALES, ("h", "<u4", 8), _NIBBLES_K), Kind.Q8M, _q5_k),
    "Q6_K": Format(
        _structure(("l", "u1", 128), ("h", "u1", 64), ("s", "i1", 16), _D), Kind.Q8, _q6_k
    ),
}
"""By the names that gguf gives them."""
