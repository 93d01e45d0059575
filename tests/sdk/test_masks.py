"""Masks as runs."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferlet.masks import covers, hide, remove, row, rows, show

RANGES = st.lists(st.tuples(st.booleans(), st.integers(0, 12), st.integers(0, 12)), max_size=6)


@pytest.mark.parametrize(
    ("hidden", "length", "runs"),
    [
        ((), 6, [6]),
        (((1, 3),), 6, [1, 2, 3]),
        (((0, 2),), 6, [0, 2, 4]),
        (((0, 5),), 6, [0, 5, 1]),
        (((2, 5),), 6, [2, 3, 1]),
        (((2, 9),), 6, [2, 4]),
        (((7, 9),), 6, [6]),
    ],
)
def test_rows_cover_exactly_the_visible_slots(
    hidden: tuple[tuple[int, int], ...], length: int, runs: list[int]
) -> None:
    """Contract section 4: the first run attends."""
    assert row(hidden, length) == runs


def test_rows_that_hide_nothing_need_no_mask() -> None:
    assert rows([(), ()], 5) is None
    assert rows([(), ((0, 1),)], 5) == [[5], [0, 1, 5]]


@given(RANGES, st.integers(0, 12), st.integers(0, 12))
def test_hiding_showing_and_removing_act_like_sets(
    steps: list[tuple[bool, int, int]], start: int, count: int
) -> None:
    hidden: tuple[tuple[int, int], ...] = ()
    slots: set[int] = set()
    for hides, first, last in steps:
        if hides:
            hidden, slots = hide(hidden, first, last), slots | set(range(first, last))
        else:
            hidden, slots = show(hidden, first, last), slots - set(range(first, last))
    assert {slot for first, last in hidden for slot in range(first, last)} == slots
    assert all(a[1] < b[0] for a, b in pairwise(hidden))
    stop = start + count
    assert covers(hidden, start, stop) or not slots.issuperset(range(start, stop)) or not count

    left = {slot - count * (slot >= stop) for slot in slots if not start <= slot < stop}
    removed = remove(hidden, start, stop)
    assert {slot for first, last in removed for slot in range(first, last)} == left
