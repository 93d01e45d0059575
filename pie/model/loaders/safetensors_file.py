"""The safetensors container: where each tensor lies, and its values.

The `safetensors` package reads the same format, but needs torch for bfloat16, which takes longer
to import than a small model takes to load.
Format: https://huggingface.co/docs/safetensors (8 bytes with the size of a JSON header, the
header, the data).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.errors import ModelError

from ..mapped import MappedFile
from ..packed.floats import widened
from ..packed.matrix import Matrix

_SIZES = {"F32": 4, "F16": 2, "BF16": 2}
"""Bytes of a value; other types are not weights."""

_PREFIX = 8


@attrs.frozen(eq=False)
class Stored:
    """One tensor, still in the file."""

    file: MappedFile
    name: str
    format: str
    shape: tuple[int, ...]
    raw: NDArray[np.uint8] = attrs.field(repr=False)

    def float32(self) -> NDArray[np.float32]:
        """A copy of the values; ModelError if they are no floats."""
        if self.format not in _SIZES:
            raise ModelError(
                f"{self.file.path}: tensor {self.name} has values of type {self.format} "
                f"({', '.join(_SIZES)} are supported)"
            )
        return widened(self.raw, self.format).reshape(self.shape)

    def matrix(self) -> Matrix | None:
        """As what can be packed; None if it is no matrix of floats."""
        if len(self.shape) != 2 or self.format not in _SIZES:
            return None
        outputs, inputs = self.shape
        return Matrix(
            name=self.name,
            format=self.format,
            inputs=inputs,
            rows=self.raw.reshape(outputs, inputs * _SIZES[self.format]),
            file=self.file,
        )


def read_safetensors(path: Path) -> dict[str, Stored]:
    """All tensors in `path` by their names there; ModelError for a damaged file."""
    file = MappedFile.open(path)
    size = int.from_bytes(file.data[:_PREFIX], "little")
    if size > len(file.data) - _PREFIX:
        raise ModelError(f"{path}: not a safetensors file, or a truncated one")
    try:
        header = json.loads(file.data[_PREFIX : _PREFIX + size])
        entries = [(name, facts) for name, facts in header.items() if name != "__metadata__"]
        found = [_stored(file, name, facts, _PREFIX + size) for name, facts in entries]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: the header is damaged: {error}") from None
    return {stored.name: stored for stored in found}


def _stored(file: MappedFile, name: str, facts: dict[str, Any], base: int) -> Stored:
    shape, kind = tuple(facts["shape"]), facts["dtype"]
    first, end = facts["data_offsets"]
    if not 0 <= first <= end <= len(file.data) - base:
        raise ModelError(f"{file.path}: tensor {name} does not lie within the file")
    wrong = kind in _SIZES and end - first != math.prod(shape) * _SIZES[kind]
    if wrong or min(shape, default=1) < 0:
        raise ModelError(
            f"{file.path}: tensor {name} has {end - first} bytes for {list(shape)} {kind}"
        )
    return Stored(file, name, kind, shape, file.bytes(base + first, end - first))
