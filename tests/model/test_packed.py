"""Every format's rows, packed, are what gguf's own decoder makes of the same bytes."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pie.errors import ModelError
from pie.kernels.cpu.layout import (
    Kind,
    Packed,
    pack_bf16,
    pack_q4,
    pack_q8,
    packed_bytes,
    unpack,
)
from pie.model.mapped import MappedFile
from pie.model.packed.arena import Arena
from pie.model.packed.blocks import FORMATS
from pie.model.packed.floats import compiled_kernels
from pie.model.packed.matrix import Matrix, NotPackable

Type = gguf.GGMLQuantizationType
EXACT = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
# What a half keeps of a scale and a minimum that are products; 8 bits for two scales of 16.
BOUNDS = {"Q4_K": 1.5 * 2.0**-10, "Q5_K": 1.5 * 2.0**-10, "Q6_K": 1 / 200}
SHAPES = [(16, 256), (37, 512), (1, 768), (256, 256)]


def random_rows(format: str, outputs: int, inputs: int) -> NDArray[np.uint8]:
    """Any codes, with scales as models have them."""
    random = np.random.default_rng([outputs, inputs])
    block, size = gguf.GGML_QUANT_SIZES[Type[format]]
    raw = random.integers(0, 256, (outputs, inputs // block * size), np.uint8)
    blocks = raw.view(FORMATS[format].structure)
    for field in {"d", "m", "dmin"} & set(blocks.dtype.names or ()):
        blocks[field] = random.uniform(-0.05, 0.05, blocks.shape)
    return raw


def matrix(folder: Path, format: str, raw: NDArray[np.uint8], inputs: int) -> Matrix:
    """`raw` [outputs, bytes of a row] in a file of its own, at an odd place."""
    path = folder / "weights.bin"
    path.write_bytes(b"odd" + raw.tobytes())
    file = MappedFile.open(path)
    rows = file.bytes(3, raw.size).reshape(raw.shape)
    return Matrix(name="w", format=format, inputs=inputs, rows=rows, file=file)


def packed(source: Matrix, floats: Kind = Kind.Q8) -> tuple[Packed, float]:
    arena = Arena.reserve(source.packed_bytes(floats) + 5)
    arena.take(5)
    arena.memory[:] = 255  # what was there before must not matter
    arena = Arena.reserve(len(arena.memory) + 64)
    result, error = source.pack(arena, floats)
    assert result.data.__array_interface__["data"][0] % 64 == 0
    assert len(result.data) == packed_bytes(result.kind, source.outputs, source.inputs)
    return result, error


def as_share(off: NDArray[np.float32], values: NDArray[np.float32]) -> float:
    """Largest difference as a share of the largest of 32 values."""
    groups = np.abs(values).reshape(-1, 32).max(axis=1)
    worst = np.abs(off).reshape(-1, 32).max(axis=1)
    assert (worst[groups == 0] == 0).all()
    return float((worst[groups > 0] / groups[groups > 0]).max())


@pytest.fixture(params=["compiled", "numpy"], autouse=True)
def _either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled gives the bits that numpy gives."""
    if request.param == "numpy":
        for module in ("floats", "blocks"):
            monkeypatch.setattr(f"pie.model.packed.{module}.compiled_kernels", lambda: None)
    else:
        pytest.importorskip("llvmlite")


@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
@pytest.mark.parametrize("format", EXACT)
def test_formats_with_a_packed_form_are_kept_bit_for_bit(
    tmp_path: Path, format: str, outputs: int, inputs: int
) -> None:
    raw = random_rows(format, outputs, inputs)
    result, error = packed(matrix(tmp_path, format, raw, inputs))
    np.testing.assert_array_equal(unpack(result), gguf.quants.dequantize(raw, Type[format]))
    assert error == 0


@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
@pytest.mark.parametrize("format", BOUNDS)
def test_the_others_are_within_the_error_that_is_told(
    tmp_path: Path, format: str, outputs: int, inputs: int
) -> None:
    raw = random_rows(format, outputs, inputs)
    values = gguf.quants.dequantize(raw, Type[format])
    result, error = packed(matrix(tmp_path, format, raw, inputs))
    share = as_share(unpack(result) - values, values)
    # What is told is of all codes and magnitudes that a group may have.
    assert share / 2 < error < 2 * share
    assert error <= BOUNDS[format]


def test_k_formats_whose_scales_are_halves_are_exact(tmp_path: Path) -> None:
    for format in ("Q4_K", "Q5_K"):
        raw = random_rows(format, 20, 512)
        blocks = raw.view(FORMATS[format].structure)
        blocks["d"], blocks["dmin"] = 2.0**-7, 2.0**-6
        result, error = packed(matrix(tmp_path, format, raw, 512))
        np.testing.assert_array_equal(unpack(result), gguf.quants.dequantize(raw, Type[format]))
        assert error == 0


@pytest.mark.parametrize("format", ["Q2_K", "Q3_K", "IQ4_NL"])
def test_formats_of_other_kinds_become_eight_bits(tmp_path: Path, format: str) -> None:
    random = np.random.default_rng(1)
    block, size = gguf.GGML_QUANT_SIZES[Type[format]]
    raw = random.integers(0x20, 0x30, (33, 256 // block * size), np.uint8)  # halves around 0.02
    values = gguf.quants.dequantize(raw, Type[format])
    result, error = packed(matrix(tmp_path, format, raw, 256))
    expected = gguf.quants.quantize(values, Type.Q8_0)
    np.testing.assert_array_equal(unpack(result), gguf.quants.dequantize(expected, Type.Q8_0))
    assert result.kind is Kind.Q8
    assert 0 < error < 0.02


@pytest.mark.parametrize("format", ["F32", "F16", "BF16"])
def test_floats_are_quantised_as_the_reference_does(tmp_path: Path, format: str) -> None:
    """Ties, zeros, an outlier and scales that a half rounds are all in it."""
    random = np.random.default_rng(2)
    values = random.standard_normal((50, 96)).astype(np.float32) * 0.04
    values[3, :32] = 0
    values[4, :32] = (np.arange(32, dtype=np.float32) - 16 + 0.5) * 2**-9
    values[4, 0] = 127 * 2**-9
    values[5, 40] = 30
    raw = gguf.quants.quantize(values, Type[format])
    kept = gguf.quants.dequantize(raw, Type[format])
    result, error = packed(matrix(tmp_path, format, raw.view(np.uint8), 96))
    expected = gguf.quants.dequantize(gguf.quants.quantize(kept, Type.Q8_0), Type.Q8_0)
    np.testing.assert_array_equal(unpack(result), expected)
    share = as_share(expected - kept, kept)
    assert 0.9 * error < share <= error


@pytest.mark.parametrize("format", ["F32", "F16", "BF16"])
def test_floats_become_bfloat16_when_asked(tmp_path: Path, format: str) -> None:
    values = np.random.default_rng(3).standard_normal((20, 64)).astype(np.float32)
    raw = gguf.quants.quantize(values, Type[format])
    kept = gguf.quants.dequantize(raw, Type[format])
    result, error = packed(matrix(tmp_path, format, raw.view(np.uint8), 64), Kind.BF16)
    assert result.kind is Kind.BF16
    rounded = torch.from_numpy(kept.copy()).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(unpack(result), rounded)
    assert (error == 0) == (format == "BF16")
    assert error <= 2.0**-8


def test_packing_agrees_with_the_layouts_own(tmp_path: Path) -> None:
    """Byte for byte, the rows of zeros that fill the last block included."""
    random = np.random.default_rng(4)
    codes = random.integers(0, 16, (40, 64)).astype(np.uint8)
    scales, minima = random.standard_normal((2, 40, 2)).astype(np.float16)
    blocks = np.zeros((40, 2), FORMATS["Q4_1"].structure)
    halves = codes.reshape(40, 2, 2, 16)
    blocks["d"], blocks["m"] = scales, minima
    blocks["q"] = (halves[:, :, 0] | (halves[:, :, 1] << 4)).view(np.uint32)
    result, _ = packed(matrix(tmp_path, "Q4_1", blocks.view(np.uint8), 64))
    np.testing.assert_array_equal(result.data, pack_q4(codes, scales, minima))
    signed = random.integers(-127, 128, (40, 64)).astype(np.int8)
    eight = np.zeros((40, 2), FORMATS["Q8_0"].structure)
    eight["d"], eight["q"] = scales, signed.reshape(40, 2, 32).view(np.uint32)
    result, _ = packed(matrix(tmp_path, "Q8_0", eight.view(np.uint8), 64))
    np.testing.assert_array_equal(result.data, pack_q8(signed, scales))
    bits = random.integers(0, 0x7F80, (40, 64)).astype(np.uint16)
    result, _ = packed(matrix(tmp_path, "BF16", bits.view(np.uint8), 64), Kind.BF16)
    np.testing.assert_array_equal(result.data, pack_bf16(bits))


def test_rows_are_taken_in_the_order_that_is_asked(tmp_path: Path) -> None:
    raw = random_rows("Q4_1", 48, 64)
    plain = matrix(tmp_path, "Q4_1", raw, 64)
    order = np.random.default_rng(5).permutation(48)
    turned = Matrix(
        name="w", format="Q4_1", inputs=64, rows=plain.rows, order=order, file=plain.file
    )
    np.testing.assert_array_equal(unpack(packed(turned)[0]), unpack(packed(plain)[0])[order])
    again = order[::-1].copy()
    both = unpack(packed(turned.reordered(again))[0])
    np.testing.assert_array_equal(both, unpack(packed(plain)[0])[order[again]])


@pytest.mark.parametrize("format", [*FORMATS, "Q3_K", "IQ4_NL", "F16", "BF16"])
def test_zeros_can_be_put_between_rows(tmp_path: Path, format: str) -> None:
    if format in FORMATS:
        raw = random_rows(format, 20, 256)
    else:
        block, size = gguf.GGML_QUANT_SIZES[Type[format]]
        raw = np.random.default_rng(7).integers(0x20, 0x30, (20, 256 // block * size), np.uint8)
    plain = matrix(tmp_path, format, raw, 256)
    order = np.array([0, 1, -1, *range(2, 20), -1])
    result, error = packed(plain.reordered(order))
    whole, same = packed(plain)
    assert (result.outputs, error) == (22, same)
    np.testing.assert_array_equal(unpack(result)[order >= 0], unpack(whole))
    assert not unpack(result)[order < 0].any()


def test_both_ways_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llvmlite")
    found = []
    for kernels in (compiled_kernels(), None):
        for module in ("floats", "blocks"):
            monkeypatch.setattr(
                f"pie.model.packed.{module}.compiled_kernels", lambda kernels=kernels: kernels
            )
        raw = random_rows("Q6_K", 100, 512)
        found.append(packed(matrix(tmp_path, "Q6_K", raw, 512))[0].data)
    np.testing.assert_array_equal(found[0], found[1])


def test_slices_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = random_rows("Q6_K", 100, 256)
    whole, error = packed(matrix(tmp_path, "Q6_K", raw, 256))
    monkeypatch.setattr("pie.model.packed.matrix._SLICE_BYTES", 1)
    sliced, worst = packed(matrix(tmp_path, "Q6_K", raw, 256))
    np.testing.assert_array_equal(whole.data, sliced.data)
    assert error == worst


def test_rows_that_are_no_whole_groups_have_no_packed_form(tmp_path: Path) -> None:
    source = matrix(tmp_path, "F32", np.zeros((4, 48 * 4), np.uint8), 48)
    with pytest.raises(NotPackable, match=r"tensor w has 48 inputs, no multiple of 32"):
        source.pack(Arena.reserve(1000), Kind.Q8)


@pytest.mark.parametrize(
    ("format", "value"), [("Q4_1", np.nan), ("Q8_0", np.inf), ("Q4_0", 9000), ("Q4_K", 40000)]
)
def test_scales_that_are_not_finite_are_refused(tmp_path: Path, format: str, value: float) -> None:
    """Also those that would not be: 8 times 9,000 is no half."""
    raw = random_rows(format, 20, 256)
    raw.view(FORMATS[format].structure)["d"][7, 0] = value
    with pytest.raises(ModelError, match="tensor w has weights that are not finite"):
        packed(matrix(tmp_path, format, raw, 256))


@pytest.mark.parametrize("floats", [Kind.Q8, Kind.BF16])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e37])
def test_floats_that_are_not_finite_are_refused(tmp_path: Path, value: float, floats: Kind) -> None:
    values = np.ones((20, 64), np.float32)
    values[9, 3] = value
    source = matrix(tmp_path, "F32", values.view(np.uint8), 64)
    if value == 1e37 and floats is Kind.BF16:
        assert unpack(packed(source, floats)[0])[9, 3] == pytest.approx(1e37, rel=0.01)
        return
    with pytest.raises(ModelError, match="tensor w has weights that are not finite"):
        packed(source, floats)


def test_an_arena_gives_no_more_than_it_has() -> None:
    arena = Arena.reserve(1000)
    assert len(arena.take(100)) == 100
    assert arena.take(1).__array_interface__["data"][0] % 64 == 0
    with pytest.raises(ModelError, match="memory of 1000 bytes is too small: 1092 are needed"):
        arena.take(900)
    with pytest.raises(ModelError, match="no memory for"):
        Arena.reserve(1 << 60)
