"""How many passes are answered between two passes of the loop."""

from __future__ import annotations

import pytest

from pie.actors.slices import AIM, LARGEST, SMALLEST, SettleSlice


def test_in_virtual_time_slices_stay_the_largest() -> None:
    """So that a simulation does not depend on how fast it runs."""
    settle = SettleSlice()

    for _ in range(5):
        settle.took(0.0)

    assert settle.size == LARGEST


@pytest.mark.parametrize("guest_seconds", [50e-6, 150e-6, 300e-6])
def test_slices_shrink_until_a_pass_of_the_loop_is_short(guest_seconds: float) -> None:
    settle = SettleSlice()

    for _ in range(20):
        settle.took(settle.size * guest_seconds)

    assert settle.size * guest_seconds <= AIM
    assert settle.size == LARGEST or (settle.size + 2) * guest_seconds > AIM


def test_slices_never_become_tiny_and_grow_again() -> None:
    settle = SettleSlice()

    for _ in range(10):
        settle.took(1.0)
    small = settle.size
    for _ in range(10):
        settle.took(AIM / 100)

    assert (small, settle.size) == (SMALLEST, LARGEST)


def test_one_long_pass_of_the_loop_changes_little() -> None:
    settle = SettleSlice()

    settle.took(10.0)

    assert settle.size == LARGEST // 2
