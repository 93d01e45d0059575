"""Attention masks as sorted, disjoint ranges of hidden slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

Hidden: TypeAlias = tuple[tuple[int, int], ...]
"""(start, stop) of each run of hidden slots, ascending, not touching."""


def hide(hidden: Hidden, start: int, stop: int) -> Hidden:
    """`hidden` and the slots from `start` to before `stop`."""
    ranges: list[tuple[int, int]] = []
    for first, last in sorted([*hidden, (start, stop)]):
        if ranges and first <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(last, ranges[-1][1]))
        elif first < last:
            ranges.append((first, last))
    return tuple(ranges)


def show(hidden: Hidden, start: int, stop: int) -> Hidden:
    """`hidden` without the slots from `start` to before `stop`."""
    pieces = [
        piece
        for first, last in hidden
        for piece in ((first, min(last, start)), (max(first, stop), last))
        if piece[0] < piece[1]
    ]
    return tuple(pieces) if start < stop else hidden


def remove(hidden: Hidden, start: int, stop: int) -> Hidden:
    """`hidden` after the slots from `start` to before `stop` are gone and later ones moved down."""
    kept = show(hidden, start, stop)
    moved: Hidden = ()
    for first, last in kept:
        down = stop - start if first >= stop else 0
        moved = hide(moved, first - down, last - down)
    return moved


def covers(hidden: Hidden, start: int, stop: int) -> bool:
    """Whether all slots from `start` to before `stop` are hidden."""
    return any(first <= start and stop <= last for first, last in hidden)


def row(hidden: Hidden, length: int) -> list[int]:
    """The mask row of an input that sees `length` slots: runs, the first attends (contract 4)."""
    runs: list[int] = []
    end = 0
    for first, last in hidden:
        if first >= length:
            break
        runs += [first - end, min(last, length) - first]
        end = min(last, length)
    if end < length:
        runs.append(length - end)
    return runs


def rows(hidden: Sequence[Hidden], first_length: int) -> list[list[int]] | None:
    """The rows of consecutive inputs, or None when all are plainly causal."""
    if not any(hidden):
        return None
    return [row(each, first_length + index) for index, each in enumerate(hidden)]
