"""The safetensors container: where each tensor lies, for those who read it in place.

Format: https://huggingface.co/docs/safetensors (8 bytes with the size of a JSON header, the
header, the data).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pie.errors import ModelError

from ..mapped import MappedFile
from ..packed.matrix import Matrix

_SIZES = {"F32": 4, "F16": 2, "BF16": 2}
"""Bytes of a value; other types are not weights."""

_PREFIX = 8


def read_matrices(path: Path) -> dict[str, Matrix]:
    """All matrices of floats in `path`, by their names there; ModelError for a damaged file."""
    file = MappedFile.open(path)
    size = int.from_bytes(file.data[:_PREFIX], "little")
    try:
        header = json.loads(file.data[_PREFIX : _PREFIX + size])
        entries = [(name, facts) for name, facts in header.items() if name != "__metadata__"]
        found = [_matrix(file, name, facts, _PREFIX + size) for name, facts in entries]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: the header is damaged: {error}") from None
    return {matrix.name: matrix for matrix in found if matrix}


def _matrix(file: MappedFile, name: str, facts: dict[str, Any], base: int) -> Matrix | None:
    shape, kind = facts["shape"], facts["dtype"]
    first, end = facts["data_offsets"]
    if not 0 <= first <= end <= len(file.data) - base:
        raise ModelError(f"{file.path}: tensor {name} does not lie within the file")
    if len(shape) != 2 or kind not in _SIZES:
        return None
    if end - first != math.prod(shape) * _SIZES[kind]:
        raise ModelError(f"{file.path}: tensor {name} has {end - first} bytes for {shape} {kind}")
    rows = file.bytes(base + first, end - first).reshape(shape[0], shape[1] * _SIZES[kind])
    return Matrix(name=name, format=kind, inputs=shape[1], rows=rows, file=file)
