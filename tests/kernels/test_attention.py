"""Attention over pages against float64, and the laws of its bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tests.kernels.support")

from pie.kernels.cpu.lines import Form
from pie.kernels.cpu.target import detect
from tests.kernels.attention_case import Case

# Queries and weights are rounded to bfloat16 where the processor multiplies these.
TARGET = detect()
assert TARGET is not None
# Codes of queries and weights are exact to 16 bits; one of K or V may be the neighbouring one.
OF_FORM = {Form.BF16: 2e-2 if TARGET.bf16 else 2e-5, Form.INT8: 1e-3}
FORMS = pytest.mark.parametrize("form", Form)


def check(case: Case) -> None:
    difference = np.abs(case.run() - case.expected())
    assert difference.max() < OF_FORM[case.form]  # NaN is not smaller


@FORMS
@pytest.mark.parametrize(
    ("slots", "rows", "dim", "kv", "group"),
    [
        (1, 1, 16, 1, 1),
        (5, 5, 64, 3, 3),
        (16, 1, 32, 2, 2),
        (17, 3, 48, 1, 5),
        (40, 40, 80, 1, 1),
        (100, 7, 128, 2, 4),
        (511, 2, 64, 1, 8),
        (512, 3, 96, 1, 6),
        (513, 4, 64, 1, 7),
        (530, 20, 256, 1, 1),
        (2000, 2, 64, 2, 3),
    ],
)
def test_any_sizes(slots: int, rows: int, dim: int, kv: int, group: int, form: Form) -> None:
    check(Case.random(slots, slots, rows, dim, kv, group, form=form))


@FORMS
def test_many_sizes_at_random(form: Form) -> None:
    random = np.random.default_rng(9)
    for seed in range(40):
        slots = int(random.integers(1, 90))
        rows = int(random.integers(1, min(slots, 12) + 1))
        dim, group = 16 * int(random.integers(1, 9)), int(random.integers(1, 9))
        check(Case.random(seed, slots, rows, dim, int(random.integers(1, 3)), group, form=form))


@FORMS
@pytest.mark.parametrize("window", [1, 15, 16, 17, 100, 600])
@pytest.mark.parametrize("slots", [20, 700, 1200])
def test_window(slots: int, window: int, form: Form) -> None:
    check(Case.random(1, slots, 6, 32, 1, 3, window=window, form=form))


@FORMS
def test_masks(form: Form) -> None:
    random = np.random.default_rng(2)
    masks = {row: random.random(700) < 0.5 for row in (0, 2, 3, 7)}
    masks[2][16:640] = False  # a gap of whole pages
    masks[3][:] = False
    case = Case.random(2, 700, 8, 64, 2, 3, masks=masks, form=form)
    check(case)
    check(Case.random(3, 700, 8, 64, 2, 3, masks=masks, window=90, form=form))
    assert not case.run()[3].any()


@FORMS
@pytest.mark.parametrize("soft_cap", [0.5, 5.0, 50.0])
def test_soft_cap(soft_cap: float, form: Form) -> None:
    check(Case.random(4, 600, 5, 64, 1, 3, soft_cap=soft_cap, scale=1.0, form=form))


def test_large_scores_and_ties() -> None:
    case = Case.random(5, 80, 4, 32, 1, 2, scale=30.0)
    case.queries = np.round(case.queries)  # exact in bfloat16
    case.keys = np.round(case.keys * 2)
    case.keys[40:] = case.keys[39]
    case.scale = 32.0 / np.log2(np.e).astype(np.float64)  # which becomes a power of two
    case.fill(case.table)
    check(case)


@FORMS
def test_what_is_not_finite_stays_with_its_slot(form: Form) -> None:
    """A slot that is not seen has no influence, whatever was written."""
    case = Case.random(6, 70, 30, 32, 1, 2, form=form)
    before = case.run()
    for bad in (np.nan, np.inf, -np.inf):
        case.keys[50, :, ::3] = bad
        case.values[50, :, ::5] = bad
        case.fill(case.table)
        after = case.run()
        first = 50 - 40  # row i sees slots 0 .. 40 + i
        assert after[:first].tobytes() == before[:first].tobytes()
        assert after[first:].tobytes() != before[first:].tobytes()


@FORMS
def test_a_query_that_is_no_number_gives_no_number(form: Form) -> None:
    case = Case.random(7, 600, 3, 32, 1, 3, form=form)
    before = case.run()
    case.queries[1, 2, 5] = np.nan
    after = case.run()
    assert np.isnan(after[1, 2]).all()
    after[1, 2] = before[1, 2]
    assert after.tobytes() == before.tobytes()


def laws() -> list[dict[str, Any]]:
    random = np.random.default_rng(3)
    masks = {row: random.random(1200) < 0.3 for row in (1, 4, 5)}
    masks[4][100:1100] = False
    return [{}, {"window": 530}, {"masks": masks}, {"soft_cap": 4.0}]


@FORMS
@pytest.mark.parametrize("more", laws())
@pytest.mark.parametrize("group", [1, 3, 6])
def test_bits_depend_on_the_query_alone(group: int, more: dict[str, Any], form: Form) -> None:
    """Not on who shares a call, how rows are cut, which pages, or who computed which segment."""
    case = Case.random(8, 1200, 7, 48, 2, group, form=form, **more)
    whole = case.run()
    for size in (1, 2, 3, 5):
        parts = [case.run(row, min(size, 7 - row)) for row in range(0, 7, size)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
    for row, order in ((0, [0, 1, 2]), (4, [2, 0, 1]), (6, [1, 2, 0])):
        assert case.run_split(row, order).tobytes() == whole[row].tobytes()
    case.fill(case.table[::-1].copy())
    assert case.run().tobytes() == whole.tobytes()
    # Other rows and heads of the pass do not matter, nor does what comes after.
    case.queries[:3] *= 7.0
    case.keys[1199], case.values[1199] = 50.0, -50.0
    case.fill(case.table)
    assert case.run()[3:6].tobytes() == whole[3:6].tobytes()


@pytest.mark.parametrize(("form", "bound"), [(Form.BF16, 4e-3), (Form.INT8, 1.2e-2)])
def test_error_against_exact_keys_and_values(form: Form, bound: float) -> None:
    """The root mean square error of long and short contexts, relative to that of the results."""
    for slots in (8, 100, 2000):
        case = Case.random(slots, slots, 4, 64, 2, 3, form=form)
        exact = case.exactly(case.keys, case.values)
        error = np.sqrt(((case.run() - exact) ** 2).mean() / (exact**2).mean())
        assert error < bound, slots
