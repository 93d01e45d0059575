"""A matrix of a model file that has not been read yet, and what packing makes of it."""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.errors import ModelError
from pie.kernels.cpu.layout import BLOCK, GROUP, Kind, Packed, block_bytes, packed_bytes

from ..gguf_types import decoded
from ..mapped import MappedFile
from .arena import Arena
from .blocks import FORMATS
from .floats import coded_bf16, coded_q8, widened
from .place import Coded, place

_SLICE_BYTES = 1 << 20
"""Bytes of the file that are packed at once: they and what is made of them stay in a cache."""

FLOATS = ("F32", "F16", "BF16")


class NotPackable(ModelError):
    """A matrix that the packed layout cannot hold; the model can still be run otherwise."""


@attrs.frozen(eq=False, kw_only=True)
class Matrix:
    """Rows of a mapped file in one of GGUF's formats."""

    name: str
    format: str
    """As `gguf` names it: Q4_1, F32, ..."""
    inputs: int
    rows: NDArray[np.uint8] = attrs.field(repr=False)
    """[outputs, bytes of a row]"""
    order: NDArray[np.int64] | None = None
    """[outputs] which row of the file is output i, or -1: zeros; None: they are in order."""
    file: MappedFile

    @property
    def outputs(self) -> int:
        return len(self.rows if self.order is None else self.order)

    def reordered(self, order: NDArray[np.int64]) -> Matrix:
        """Its outputs in another order, as `order` of one that is in order."""
        if self.order is not None:
            order = np.where(order < 0, -1, self.order[order])
        return attrs.evolve(self, order=order)

    def kind(self, floats: Kind) -> Kind:
        """What it is packed as; `floats` (Q8 or BF16) is for formats of single floats."""
        if self.format in FORMATS:
            return FORMATS[self.format].kind
        return floats if self.format in FLOATS else Kind.Q8

    def packed_bytes(self, floats: Kind) -> int:
        """Bytes that it needs in an arena; NotPackable if its rows are no whole groups."""
        if self.inputs % GROUP or not self.inputs:
            raise NotPackable(
                f"{self.file.path}: tensor {self.name} has {self.inputs} inputs, "
                f"no multiple of {GROUP}"
            )
        return packed_bytes(self.kind(floats), self.outputs, self.inputs)

    def pack(self, arena: Arena, floats: Kind) -> tuple[Packed, float]:
        """Pack it slice by slice, and let the file's memory go.

        Also returns the error, as `Coded.error`. NotPackable as above; ModelError if the arena
        is too small or weights are not finite.
        """
        kind, data = self.kind(floats), arena.take(self.packed_bytes(floats))
        blocks = data.reshape(-1, block_bytes(kind, self.inputs))
        step = max(1, _SLICE_BYTES // max(1, BLOCK * self.rows.shape[1]))
        error = 0.0
        for first in range(0, len(blocks), step):
            coded = self._coded(slice(first * BLOCK, (first + step) * BLOCK), floats)
            if not _finite(coded):
                raise ModelError(
                    f"{self.file.path}: tensor {self.name} has weights that are not finite"
                )
            place(coded, blocks[first : first + step])
            error = max(error, coded.error)
            if self.order is None:
                self.file.forget(self.rows[first * BLOCK : (first + step) * BLOCK])
        self.file.forget(self.rows)
        return Packed(kind, self.outputs, self.inputs, data), error

    def _coded(self, part: slice, floats: Kind) -> Coded:
        rows = self._rows(part)
        if self.format in FORMATS:
            found = FORMATS[self.format]
            return found.decode(rows.view(found.structure))
        if self.format == "BF16" and floats is Kind.BF16:
            return Coded(Kind.BF16, rows.view(np.uint32).reshape(len(rows), -1, GROUP // 2))
        values = self._values(rows).reshape(len(rows), -1, GROUP)
        return coded_bf16(values) if self.kind(floats) is Kind.BF16 else coded_q8(values)

    def _rows(self, part: slice) -> NDArray[np.uint8]:
        if self.order is None:
            return self.rows[part]
        order = self.order[part]
        rows = self.rows[order]
        rows[order < 0] = 0  # which is a row of zeros in every format
        return rows

    def _values(self, rows: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self.format in FLOATS:
            return widened(rows, self.format)
        try:
            values = decoded(rows, self.format)
        except NotImplementedError:
            raise ModelError(
                f"{self.file.path}: tensor {self.name}: no decoder for {self.format}"
            ) from None
        return np.ascontiguousarray(values, np.float32)


def _finite(coded: Coded) -> bool:
    halves = [part for part in (coded.scales, coded.minima) if part is not None]
    return np.isfinite(coded.error) and all(bool(np.isfinite(part).all()) for part in halves)
