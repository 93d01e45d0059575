"""Row kernels against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tests.kernels.support")

from pie.kernels.cpu.layout import Kind, unpack
from pie.kernels.cpu.rows import (
    Form,
    embed,
    gate_quantise,
    norm,
    norm_quantise,
    quantise,
    row_bytes,
)
from tests.kernels.support import Floats, Rows, aligned, random_matrix


def _codes(x: Floats) -> tuple[NDArray[np.int32], Floats]:
    """Codes and scales as they should be."""
    groups = x.reshape(len(x), -1, 32)
    size = np.abs(groups).max(axis=2, keepdims=True)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.where(size >= 2.0**-120, np.float32(127) / size, np.float32(0))
    codes = np.rint(groups * inverse).astype(np.int32)
    return codes, (size * np.float32(1 / 127))[..., 0]


def test_rows_are_quantised_by_groups_with_halves_to_even() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3, 608)).astype(np.float32)
    x[0, :31] = np.arange(31) + 0.5
    x[0, 31], x[1, 32:64], x[1, 64:96] = 127.0, 0.0, 1e-39
    rows = Rows.of(x, Form.S8)
    codes, scales = _codes(x)
    assert (rows.codes().reshape(codes.shape) == codes).all()
    assert (rows.codes()[0, :8] == [0, 2, 2, 4, 4, 6, 6, 8]).all()
    assert (rows.scales() == scales).all()
    scaled, less = rows.tails()
    assert (less == -128 * codes.sum(axis=2)).all()
    assert (scaled == scales * codes.sum(axis=2).astype(np.float32)).all()


@pytest.mark.parametrize("form", Form)
def test_parts_of_a_row_are_written_alone(form: Form) -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((1, 192)).astype(np.float32)
    whole, parts = Rows.of(x, form), aligned(np.zeros(row_bytes(form, 192), np.uint8))
    for first, groups in ((4, 2), (0, 1), (1, 3)):
        source = x[0, 32 * first :].ctypes.data
        quantise(form, source, parts.ctypes.data, 192, first, groups)
    assert parts.tobytes() == whole.data.tobytes()


@pytest.mark.parametrize("width", [32, 64, 576, 2080])
def test_norm_is_the_root_mean_square_one(width: int) -> None:
    rng = np.random.default_rng(3)
    x, weight = rng.standard_normal((2, width)).astype(np.float32)
    out = np.empty(width, np.float32)
    norm(x.ctypes.data, weight.ctypes.data, out.ctypes.data, width, 1e-5)
    wide = x.astype(np.float64)
    expected = wide / np.sqrt((wide**2).mean() + 1e-5) * weight
    assert np.abs(out - expected).max() <= 1e-6 * np.abs(expected).max()
    for form in Form:
        row = aligned(np.zeros((1, row_bytes(form, width)), np.uint8))
        norm_quantise(form, x.ctypes.data, weight.ctypes.data, row.ctypes.data, width, 1e-5)
        assert row.tobytes() == Rows.of(out[None], form).data.tobytes()


@pytest.mark.parametrize("activation", [0, 1])
def test_gates_are_silu_and_gelu(activation: int) -> None:
    gate = np.linspace(-20, 20, 96).astype(np.float32)
    up = np.random.default_rng(4).standard_normal(96).astype(np.float32)
    row = aligned(np.zeros((1, row_bytes(Form.BF16, 96)), np.uint8)).reshape(1, -1)
    for group in range(3):
        at = 128 * group
        addresses = (gate.ctypes.data + at, up.ctypes.data + at, row.ctypes.data)
        gate_quantise(Form.BF16, activation, *addresses, 96, group)
    x = gate.astype(np.float64)
    inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    gated = 0.5 * x * (1 + np.tanh(inner)) if activation else x / (1 + np.exp(-x))
    found, expected = Rows(Form.BF16, 96, row).values()[0], gated * up
    assert np.abs(found - expected).max() <= 2.0**-8 * np.abs(expected).max()
    codes = aligned(np.zeros((1, row_bytes(Form.S8, 96)), np.uint8)).reshape(1, -1)
    for group in range(3):
        at = 128 * group
        addresses = (gate.ctypes.data + at, up.ctypes.data + at, codes.ctypes.data)
        gate_quantise(Form.S8, activation, *addresses, 96, group)
    rows = Rows(Form.S8, 96, codes)
    close = np.abs(rows.values()[0] - expected).reshape(3, 32)
    assert (close <= 0.51 * rows.scales()[0, :, None] + 1e-6).all()


@pytest.mark.parametrize("kind", Kind)
def test_embedding_is_a_row_of_the_unpacked_matrix(kind: Kind) -> None:
    rng = np.random.default_rng(5)
    matrix = random_matrix(kind, 37, 160, rng)
    expected = unpack(matrix) * np.float32(1.5)
    out = np.full(164, 7.0, np.float32)
    for token in range(37):
        embed(kind, matrix.data.ctypes.data, 160, token, out.ctypes.data, 1.5)
        assert np.abs(out[:160] - expected[token]).max() <= 2e-7 * np.abs(expected).max()
        assert (out[160:] == 7.0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", range(32))
def test_a_value_that_is_not_finite_is_never_lost(bad: float, place: int) -> None:
    x = np.random.default_rng(6).standard_normal((1, 64)).astype(np.float32)
    x[0, place] = bad
    rows = Rows.of(x, Form.S8)
    assert not np.isfinite(rows.scales()[0, 0])
    assert np.isfinite(rows.scales()[0, 1])
    assert (rows.codes() >= -127).all()
    row, one = aligned(np.zeros((1, row_bytes(Form.S8, 64)), np.uint8)), np.ones(64, np.float32)
    norm_quantise(Form.S8, x.ctypes.data, one.ctypes.data, row.ctypes.data, 64, 1e-5)
    assert not np.isfinite(Rows(Form.S8, 64, row.reshape(1, -1)).scales()[0, 0])
