"""Pointers in short: those of a context mostly ascend by one."""

from __future__ import annotations

from collections.abc import Sequence


def ranges(numbers: Sequence[int]) -> list[int]:
    """`numbers` as first, count, first, count, ... of what ascends by one."""
    found: list[int] = []
    following = -1
    for number in numbers:
        if number == following:
            found[-1] += 1
        else:
            found += (number, 1)
        following = number + 1
    return found


def from_ranges(pairs: Sequence[int]) -> list[int]:
    """What `ranges` was given."""
    starts = zip(pairs[::2], pairs[1::2], strict=True)
    return [number for first, count in starts for number in range(first, first + count)]
