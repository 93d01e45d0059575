"""A GGUF file that is damaged is refused in one line, wherever it is damaged."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pie.errors import ModelError
from pie.model import load
from pie.model.gguf_types import TYPES
from pie.model.loaders.gguf import load_gguf
from pie.model.loaders.gguf_file import read_gguf
from tests.model.tiny import Tiny, write_gguf


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "whole.gguf", Tiny()).read_bytes()


def test_metadata_and_tensors_are_those_written(tmp_path: Path) -> None:
    file = read_gguf(write_gguf(tmp_path / "t.gguf", Tiny()))
    reader = gguf.GGUFReader(tmp_path / "t.gguf")
    written = {
        name: field.contents()
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.")
    }
    assert file.metadata == written
    assert list(file.tensors) == [tensor.name for tensor in reader.tensors]
    for tensor in reader.tensors:
        np.testing.assert_array_equal(file.tensors[tensor.name].float32(), tensor.data)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0", "F16", "BF16"])
def test_quantised_tensors_are_decoded(tmp_path: Path, kind: str) -> None:
    values = np.linspace(-1, 1, 3 * 64, dtype=np.float32).reshape(3, 64)
    quantisation = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(tmp_path / "q.gguf", "llama")
    writer.add_tensor("w", gguf.quants.quantize(values, quantisation), raw_dtype=quantisation)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = read_gguf(tmp_path / "q.gguf").tensors["w"].float32()
    np.testing.assert_allclose(found, values, atol=0.08)


def test_types_are_those_of_the_gguf_package() -> None:
    for number, stored in TYPES.items():
        theirs = gguf.GGMLQuantizationType(number)
        assert stored.name == theirs.name
        assert (stored.block, stored.size) == gguf.GGML_QUANT_SIZES[theirs]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(share=st.floats(0, 0.9999))
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, whole: bytes, share: float) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ModelError, match=r"cut\.gguf: .*(truncated|empty|not a GGUF)"):
        load_gguf(path)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=st.integers(0, 20_000), byte=st.integers(0, 255))
def test_a_flipped_byte_of_the_header_is_no_bug_of_ours(
    tmp_path: Path, whole: bytes, at: int, byte: int
) -> None:
    """It may go unnoticed (a name, a weight), but nothing but a ModelError may come of it."""
    damaged = bytearray(whole)
    damaged[at % len(damaged)] = byte
    path = tmp_path / "flipped.gguf"
    path.write_bytes(damaged)
    with suppress(ModelError):
        load_gguf(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"GGML" + data[4:], "not a GGUF file: it starts with b'GGML'"),
        (lambda data: data[:4] + struct.pack("<I", 9) + data[8:], "GGUF version 9"),
        (lambda data: b"", "the file is empty"),
    ],
)
def test_what_is_no_gguf_file_is_told_apart(
    tmp_path: Path, whole: bytes, damage: object, message: str
) -> None:
    path = tmp_path / "bad.gguf"
    assert callable(damage)
    path.write_bytes(damage(whole))
    with pytest.raises(ModelError, match=message):
        load(path)


def test_a_path_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.gguf: no such file or folder"):
        load(tmp_path / "nowhere.gguf")
