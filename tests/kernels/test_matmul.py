"""Products of packed matrices: exact sums, and bits that depend on the row alone."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tests.kernels.support")

from pie.kernels.cpu.layout import Kind
from pie.kernels.cpu.rows import form_of
from tests.kernels.support import (
    INTEGER_KINDS,
    Rows,
    exact,
    packed,
    product,
    random_matrix,
    rows_for,
)

COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 33)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(("outputs", "inputs"), [(16, 32), (37, 64), (80, 576), (5, 1536)])
def test_products_are_those_of_the_unpacked_matrix(kind: Kind, outputs: int, inputs: int) -> None:
    rng = np.random.default_rng(outputs)
    matrix = random_matrix(kind, outputs, inputs, rng)
    for count in COUNTS:
        rows = rows_for(matrix, count, rng)
        expected = exact(matrix, rows)
        error = np.abs(product(matrix, rows) - expected).max()
        assert error <= 3e-6 * np.abs(expected).max(), count


@pytest.mark.parametrize("kind", Kind)
def test_a_row_has_the_same_bits_in_any_company(kind: Kind) -> None:
    rng = np.random.default_rng(7)
    matrix = random_matrix(kind, 37, 608, rng)
    rows = rows_for(matrix, 33, rng)
    alone = [product(matrix, Rows(rows.form, rows.inputs, rows.data[i : i + 1])) for i in range(33)]
    expected = np.concatenate(alone)
    for count in COUNTS:
        some = Rows(rows.form, rows.inputs, rows.data[33 - count :])
        assert product(matrix, some).tobytes() == expected[33 - count :].tobytes(), count


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("count", [1, 7])
def test_adding_is_one_rounded_sum(kind: Kind, count: int) -> None:
    rng = np.random.default_rng(11)
    matrix = random_matrix(kind, 32, 96, rng)
    rows = rows_for(matrix, count, rng)
    before = rng.standard_normal((count, 32)).astype(np.float32)
    assert (product(matrix, rows, before) == before + product(matrix, rows)).all()


@pytest.mark.parametrize("kind", INTEGER_KINDS)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_codes_do_not_overflow(kind: Kind, sign: int) -> None:
    rng = np.random.default_rng(13)
    largest = np.uint8(15) if kind is Kind.Q4 else np.int8(-128)
    codes = np.full((16, 64), largest)
    codes[1::2] = 0 if kind is Kind.Q4 else 127
    matrix = packed(kind, codes, rng)
    rows = Rows.of(np.full((5, 64), sign * 3.0, np.float32), form_of(kind))
    assert (rows.codes() == sign * 127).all()
    expected = exact(matrix, rows)
    assert np.abs(product(matrix, rows) - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_gives_none_and_harms_no_other(kind: Kind, bad: float) -> None:
    rng = np.random.default_rng(17)
    matrix = random_matrix(kind, 48, 96, rng)
    x = rng.standard_normal((6, 96)).astype(np.float32)
    x[2, 41] = x[5, 0] = bad
    found = product(matrix, Rows.of(x, form_of(kind)))
    assert not np.isfinite(found[[2, 5]]).any()
    x[2] = x[5] = 0.0
    expected = product(matrix, Rows.of(x, form_of(kind)))
    assert found[[0, 1, 3, 4]].tobytes() == expected[[0, 1, 3, 4]].tobytes()
    assert np.isfinite(expected).all()


def test_no_rows_write_nothing() -> None:
    rng = np.random.default_rng(19)
    matrix = random_matrix(Kind.Q8, 16, 32, rng)
    rows = rows_for(matrix, 1, rng)
    nothing = Rows(rows.form, rows.inputs, rows.data[:0])
    assert product(matrix, nothing).shape == (0, 16)
