"""Compiled functions give what Python gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest

pytest.importorskip("tests.kernels.support")

from pie.kernels.cpu.arrays import address
from pie.kernels.cpu.code_folder import code_folder
from pie.kernels.cpu.jit import compiled
from pie.kernels.cpu.plan import TASK, floats_at, ints_at, tasks_at
from pie.kernels.cpu.statements import CannotCompile

WHOLE = (-(1 << 40), -33, -8, -1, 0, 1, 7, 8, 12345, 1 << 40)
REAL = (-3.5, -1.0, -0.0, 0.0, 1e-300, 0.1, 2.0, 1e300, math.inf, math.nan)
SIZES = (3, 8)


@compiled
def arithmetic(a: int, b: int) -> int:
    either = (a & b) ^ (a | 5)
    return (a + b) * 3 - (either << 2) + (a >> 3) - -b


@compiled
def divided_by_constants(a: int, b: int) -> int:
    return a // 8 + 10 * (a % 8) + 100 * (b // 7) + 1000 * (b % 7) - (-(-a // 16))


@compiled
def divided(a: int, b: int) -> int:
    if b == 0:
        return a
    return a // b + 3 * (a % b)


@compiled
def reals(a: float, b: float) -> float:
    small = min(a, 2.0) + max(b, 1)
    return small * a - b / 3 if a < b or a == 1.0 else -small


@compiled
def conditions(a: int, b: int) -> int:
    found = 0
    if 0 <= a < b or not (b and a):
        found += 1
    elif a == b:
        return -1
    else:
        found += 2
    if a != b and (b > 0 or a > 0):
        found += 10
    return found + (1 if a else 0) + int(a > b)


@compiled
def loops(a: int, b: int) -> int:
    total, last = 0, 0
    for i in range(a % 50):
        if i % 3 == 1:
            continue
        for j in range(i, -5, -2):
            if j == 2:
                break
            total += i * j
        last = i
    while True:
        total += 1
        if total % 11 == b % 11:
            break
    for width in (3, a, 5):
        if width == 7:
            continue
        total = total * 3 + width
    return total + last


def _both(a: int, b: int) -> tuple[int, tuple[float, int]]:
    return a + b, (a / 2, b)


@compiled
def swapped(a: int, b: int) -> float:
    a, b = b, a
    pair = _both(a, b)
    total, (half, again) = pair
    return half * 2 + total + again + pair[0]


@compiled
def nothing(a: int, b: int) -> None:
    """Only a docstring, and no result."""


TWO_WHOLE = (arithmetic, divided_by_constants, divided, conditions, loops, swapped, nothing)


@pytest.mark.parametrize("function", TWO_WHOLE, ids=lambda f: f.__name__)
def test_whole_numbers(function: Any) -> None:
    for a in WHOLE:
        for b in WHOLE:
            assert function(a, b) == function.python(a, b), (a, b)


def test_whole_numbers_wrap() -> None:
    wrapped = 3 * ((1 << 62) + 1) - (1 << 64)
    either = ((1 << 62) & 1) ^ ((1 << 62) | 5)
    rest = -((either << 2) % (1 << 64)) + (1 << 59) + 1
    assert (arithmetic(1 << 62, 1) - wrapped - rest) % (1 << 64) == 0


def test_real_numbers() -> None:
    for a in REAL:
        for b in REAL:
            found, expected = reals(a, b), cast(Any, reals).python(a, b)
            assert np.float64(found).tobytes() == np.float64(expected).tobytes() or (
                math.isnan(found) and math.isnan(expected)
            ), (a, b)


@compiled
def in_single(values: int, count: int, out: int) -> None:
    """float32 stays float32 among itself; with a whole number or a float it becomes float64."""
    given, made = floats_at(values, count), floats_at(out, 4 * count)
    made[:] = 0
    for i in range(count):
        made[4 * i] = given[i] * given[i] + given[i]
        made[4 * i + 1] = given[i] * given[i] * 1.0 + given[i]
        made[4 * i + 2] += np.float32(i) - given[i]


def test_single_precision() -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal(50).astype(np.float32)
    out = np.full((50, 4), 7, np.float32)
    in_single(address(values), 50, address(out))
    once, numbers = values * values, np.arange(50, dtype=np.float32)
    np.testing.assert_array_equal(out[:, 0], once + values)
    np.testing.assert_array_equal(out[:, 1], (once.astype(np.float64) + values).astype(np.float32))
    np.testing.assert_array_equal(out[:, 2], numbers - values)
    np.testing.assert_array_equal(out[:, 3], 0)


@compiled
def _moved(task: Any, by: int) -> None:
    task.rows += by


@compiled
def records(tasks: int, numbers: int, count: int) -> None:
    all_tasks, signed = tasks_at(tasks, count), ints_at(numbers, count)
    for i in range(count):
        task = all_tasks[i]
        task.first_row, task.limit = signed[i], i
        _moved(task, task.first_row - all_tasks[0].first_row)
        signed[i] = (1 << 32) + i


def test_records_and_arrays_in_memory() -> None:
    tasks, numbers = np.zeros(3, TASK), np.array([-5, 6, 7], np.int32)
    tasks["rows"] = 100
    records(address(tasks), address(numbers), 3)
    assert tasks["first_row"].tolist() == [-5, 6, 7]
    assert tasks["limit"].tolist() == [0, 1, 2]
    assert tasks["rows"].tolist() == [100, 111, 112]
    assert numbers.tolist() == [0, 1, 2], "what does not fit is cut"


def _changes_kind(a: int) -> int:
    half = a
    half = a / 2  # type: ignore[assignment]
    return half + 1


def _says_nothing(a: Any) -> Any:
    return a


def _has_a_list(a: int) -> int:
    return len([a])


def _has_names(a: int) -> int:
    return min(a, b=2)  # type: ignore[call-overload,no-any-return]


def _calls_itself(a: int) -> int:
    return _calls_itself(a - 1) if a > 0 else 0


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_calls_itself, r"test_compiler\.py:\d+: _calls_itself calls itself"),
        (_changes_kind, r"test_compiler\.py:\d+: .*FLOAT where .*INT is needed"),
        (_says_nothing, "is not annotated with numbers"),
        (_has_a_list, r"test_compiler\.py:\d+: \[a\] is not understood"),
        (_has_names, "arguments have no names here"),
    ],
)
def test_what_is_not_understood_is_named(function: Callable[..., int], message: str) -> None:
    with pytest.raises(CannotCompile, match=message):
        compiled(function)(1)


def test_a_wrong_number_of_arguments_is_refused() -> None:
    with pytest.raises(TypeError, match="takes 2 arguments"):
        arithmetic(1)  # type: ignore[call-arg]


def test_functions_from_elsewhere_are_not_kept() -> None:
    """The folder's name knows the sources of this package alone."""
    nothing(1, 2)
    assert not list(code_folder().glob("*nothing*"))
