"""Packed matrices with random contents, and products of them next to their exact values."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("llvmlite", reason="the extra [cpu] is not installed")

from pie.kernels.cpu.layout import (
    BLOCK,
    Kind,
    Packed,
    blocks_of,
    pack_bf16,
    pack_q4,
    pack_q8,
    unpack,
)
from pie.kernels.cpu.target import detect

if detect() is None:
    pytest.skip("there are no packed kernels for this machine", allow_module_level=True)

from pie.kernels.cpu.matmul import gemm
from pie.kernels.cpu.rows import Form, form_of, quantise, row_bytes

Floats = NDArray[np.float32]
INTEGER_KINDS = (Kind.Q4, Kind.Q8, Kind.Q8M)


def aligned(data: NDArray[Any]) -> NDArray[np.uint8]:
    """A copy of the bytes that starts on a cache line."""
    buffer = np.zeros(data.nbytes + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    view = buffer[start : start + data.nbytes]
    view[:] = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return view


def codes_of(kind: Kind, shape: tuple[int, int], rng: np.random.Generator) -> NDArray[Any]:
    if kind is Kind.Q4:
        return rng.integers(0, 16, shape, dtype=np.uint8)
    if kind is Kind.BF16:
        values = rng.standard_normal(shape).astype(np.float32)
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return rng.integers(-128, 128, shape, dtype=np.int8)


def packed(kind: Kind, codes: NDArray[Any], rng: np.random.Generator) -> Packed:
    """`codes` [outputs, inputs] with random scales and minima."""
    outputs, inputs = codes.shape

    def halves() -> NDArray[np.float16]:
        return rng.normal(0, 0.05, (outputs, inputs // 32)).astype(np.float16)

    match kind:
        case Kind.Q4:
            data = pack_q4(codes, halves(), halves())
        case Kind.BF16:
            data = pack_bf16(codes)
        case _:
            data = pack_q8(codes, halves(), halves() if kind is Kind.Q8M else None)
    return Packed(kind, outputs, inputs, aligned(data))


def random_matrix(kind: Kind, outputs: int, inputs: int, rng: np.random.Generator) -> Packed:
    return packed(kind, codes_of(kind, (outputs, inputs), rng), rng)


@attrs.frozen(eq=False)
class Rows:
    """Activation rows of a form as kernels read them."""

    form: Form
    inputs: int
    data: NDArray[np.uint8]
    """[rows, row_bytes]"""

    @classmethod
    def of(cls, x: Floats, form: Form) -> Rows:
        count, inputs = x.shape
        width = row_bytes(form, inputs)
        data = aligned(np.zeros((count, width), np.uint8)).reshape(count, width)
        for values, row in zip(np.ascontiguousarray(x), data, strict=True):
            at = row.ctypes.data
            quantise(form, values.ctypes.data, at, inputs, 0, inputs // 32)
        return cls(form, inputs, data)

    def codes(self) -> NDArray[np.int8]:
        """Of form S8: [rows, inputs]."""
        return self._groups()[:, :, :32].view(np.int8).reshape(len(self.data), -1)

    def scales(self) -> Floats:
        """Of form S8: [rows, groups]."""
        return np.ascontiguousarray(self._groups()[:, :, 32:36]).view(np.float32)[..., 0]

    def tails(self) -> tuple[Floats, NDArray[np.int32]]:
        """Of form S8: scale * sum and -128 * sum, [rows, groups] each."""
        tail = np.ascontiguousarray(self._groups()[:, :, 36:44])
        return tail[..., :4].copy().view(np.float32)[..., 0], tail.view(np.int32)[..., 1]

    def values(self) -> NDArray[np.float64]:
        """What a product takes the row for."""
        if self.form is Form.S8:
            return np.repeat(self.scales(), 32, axis=1).astype(np.float64) * self.codes()
        target = detect()
        assert target is not None
        if not target.bf16:
            return self.data.view(np.float32)[:, : self.inputs].astype(np.float64)
        bits = self.data.view(np.uint16)[:, : self.inputs].astype(np.uint32) << 16
        return bits.view(np.float32).astype(np.float64)

    def _groups(self) -> NDArray[np.uint8]:
        groups = self.inputs // 32
        return self.data[:, : groups * 44].reshape(len(self.data), groups, 44)


def product(matrix: Packed, rows: Rows, added: Floats | None = None) -> Floats:
    """[rows, outputs] by the kernels; `added` [rows, outputs] is what is there before."""
    count, blocks = len(rows.data), blocks_of(matrix.outputs)
    out = np.full((count, blocks * BLOCK + 4), 7.0, np.float32)
    if added is not None:
        out[:, : matrix.outputs] = added
    gemm(
        matrix.kind,
        matrix.data.ctypes.data,
        blocks,
        rows.data.ctypes.data,
        matrix.inputs,
        count,
        out.ctypes.data,
        out.strides[0],
        added is not None,
    )
    assert (out[:, blocks * BLOCK :] == 7.0).all(), "written behind a row"
    return out[:, : matrix.outputs]


def exact(matrix: Packed, rows: Rows) -> NDArray[np.float64]:
    """The same in float64."""
    product: NDArray[np.float64] = rows.values() @ unpack(matrix).astype(np.float64).T
    return product


def rows_for(matrix: Packed, count: int, rng: np.random.Generator) -> Rows:
    x = rng.standard_normal((count, matrix.inputs)).astype(np.float32)
    return Rows.of(x, form_of(matrix.kind))
