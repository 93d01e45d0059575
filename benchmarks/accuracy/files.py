"""A model file whose matrices are in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

from pie.model.loaders.gguf_file import read_gguf

from .quantisers import format_for, quantise

_EMBEDDING = "token_embd.weight"
_FEW_BITS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K")


def requantise(source: Path, target: Path, format: str) -> None:
    """Write `source` to `target` with all matrices in `format`.

    As in files that people share, an embedding matrix that is also the head stays at 8 bits
    where the others have fewer.
    """
    file = read_gguf(source)
    writer = gguf.GGUFWriter(target, file.metadata["general.architecture"])
    for key, value in file.metadata.items():
        if key not in ("general.architecture", "general.alignment", "general.file_type"):
            _add(writer, key, value)
    tied = "output.weight" not in file.tensors
    for name, tensor in file.tensors.items():
        values = tensor.float32()
        if values.ndim != 2:
            writer.add_tensor(name, values)
            continue
        few = format in _FEW_BITS and name == _EMBEDDING and tied
        chosen = format_for("Q8_0" if few else format, values.shape[1])
        kind = gguf.GGMLQuantizationType[chosen]
        writer.add_tensor(name, quantise(values, chosen), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_int64(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case list():
            writer.add_array(key, value)
        case _:
            raise TypeError(f"metadata {key} has the unexpected type {type(value).__name__}")
    assert np.isscalar(value) or isinstance(value, list)
