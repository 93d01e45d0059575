"""The GGUF container: metadata and raw tensors, with every read checked against the file.

The `gguf` package reads the same format, but takes seconds for a vocabulary and answers a
truncated file with errors of numpy. Its dequantisers are used.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 3; 2 is read, too).
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.errors import ModelError

from ..gguf_types import TYPES, GGUFType, decoded
from ..mapped import MappedFile

_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_MAX_DIMS = 4


_Announcement: TypeAlias = tuple[str, tuple[int, ...], int, int]
"""Name, shape (outermost first), type and offset of a tensor."""


@attrs.frozen(eq=False)
class GGUFTensor:
    """One tensor, still quantised: `shape` is outermost first, `raw` its bytes in the file."""

    name: str
    shape: tuple[int, ...]
    kind: GGUFType
    raw: NDArray[np.uint8]

    def float32(self) -> NDArray[np.float32]:
        """The values; ModelError if the quantisation has no decoder."""
        width = self.shape[-1] // self.kind.block * self.kind.size
        rows = self.raw.reshape(*self.shape[:-1], width)
        try:
            values = decoded(rows, self.kind.name)
        except NotImplementedError:
            raise ModelError(f"tensor {self.name}: no decoder for {self.kind.name}") from None
        return np.require(values, np.float32, ["C", "W"]).reshape(self.shape)


@attrs.frozen(eq=False)
class GGUFFile:
    """What a GGUF file says."""

    file: MappedFile
    metadata: dict[str, Any]
    tensors: dict[str, GGUFTensor]

    @property
    def path(self) -> Path:
        return self.file.path


def read_gguf(path: Path) -> GGUFFile:
    """Read the header of `path` and map its tensors.

    Raises ModelError, with the byte where it went wrong, for what is no whole GGUF file.
    """
    return _Reader(MappedFile.open(path)).read()


@attrs.define(eq=False)
class _Reader:
    file: MappedFile
    at: int = 0

    @property
    def data(self) -> mmap.mmap:
        return self.file.data

    def fail(self, what: str) -> ModelError:
        return ModelError(f"{self.file.path}: {what} at byte {self.at} of {len(self.data)}")

    def skip(self, size: int) -> int:
        """Step over `size` bytes and return where they start."""
        start = self.at
        if size > len(self.data) - start:
            raise self.fail(f"the file is truncated: {size} more bytes were announced")
        self.at += size
        return start

    def scalar(self, form: str) -> Any:
        return struct.unpack_from(form, self.data, self.skip(struct.calcsize(form)))[0]

    def string(self) -> str:
        size = self.scalar("<Q")
        start = self.skip(size)
        try:
            return self.data[start : start + size].decode()
        except UnicodeDecodeError:
            raise self.fail("a string is not UTF-8, ending") from None

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array(self.scalar("<I"), self.scalar("<Q"))
        if kind not in _SCALARS:
            raise self.fail(f"metadata type {kind} is unknown")
        return self.scalar(_SCALARS[kind])

    def array(self, kind: int, count: int) -> list[Any]:
        if kind in _SCALARS:
            dtype = np.dtype(_SCALARS[kind])
            start = self.skip(count * dtype.itemsize)
            values: list[Any] = np.frombuffer(self.data, dtype, count, start).tolist()
            return values
        if kind == _ARRAY:
            raise self.fail("arrays of arrays are not supported, found one")
        if count > len(self.data):
            raise self.fail(f"an array of {count} entries cannot be in the file")
        if kind == _STRING:
            return self.strings(count)
        raise self.fail(f"metadata type {kind} is unknown")

    def strings(self, count: int) -> list[str]:
        """As `string`, for the hundred thousand of a vocabulary and its merges."""
        data, at, size_at = self.data, self.at, struct.Struct("<Q").unpack_from
        values = []
        try:
            for _ in range(count):
                start = at + 8
                at = start + size_at(data, at)[0]
                values.append(str(data[start:at], "utf-8"))
        except (struct.error, OverflowError, UnicodeDecodeError):
            at = len(data) + 1
        if at > len(data):  # the slow way says where and what is wrong
            return [self.string() for _ in range(count)]
        self.at = at
        return values

    def read(self) -> GGUFFile:
        if self.data[:4] != b"GGUF":
            raise self.fail(f"not a GGUF file: it starts with {self.data[:4]!r}")
        self.at = 4
        version = self.scalar("<I")
        if version not in (2, 3):
            raise self.fail(f"GGUF version {version} is not supported (2 and 3 are)")
        tensor_count, pair_count = self.scalar("<Q"), self.scalar("<Q")
        metadata: dict[str, Any] = {}
        for _ in range(pair_count):
            key = self.string()
            metadata[key] = self.value(self.scalar("<I"))
        announced = [self.announcement() for _ in range(tensor_count)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise self.fail(f"general.alignment is {alignment!r}; it must be a positive number")
        base = -(-self.at // alignment) * alignment
        tensors = {entry[0]: self.tensor(entry, base) for entry in announced}
        return GGUFFile(self.file, metadata, tensors)

    def announcement(self) -> _Announcement:
        """What the header says of the next tensor."""
        name = self.string()
        dims = self.scalar("<I")
        if not 1 <= dims <= _MAX_DIMS:
            raise self.fail(f"tensor {name} has {dims} dimensions")
        shape = tuple(self.scalar("<Q") for _ in range(dims))[::-1]
        return name, shape, self.scalar("<I"), self.scalar("<Q")

    def tensor(self, announced: _Announcement, base: int) -> GGUFTensor:
        name, shape, kind, offset = announced
        stored = TYPES.get(kind)
        if stored is None:
            raise self.fail(f"tensor {name} has the unknown type {kind}")
        block, size = stored.block, stored.size
        if shape[-1] % block:
            raise self.fail(f"tensor {name}: rows of {shape[-1]} are no multiple of {block}")
        count = math.prod(shape) // block * size
        self.at = base + offset
        if self.at + count > len(self.data):
            raise self.fail(f"the file is truncated: tensor {name} needs {count} bytes")
        raw = self.file.bytes(self.at, count)
        return GGUFTensor(name, shape, stored, raw)
