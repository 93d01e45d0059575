"""Contenders take turns: one runs, the others are held still."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from .contenders import Contender, Unsupported

Say = Callable[[str], object]

FAILURES = (RuntimeError, OSError, ValueError, KeyError)
"""What a contender's trouble is raised as; all else is a mistake of the benchmark."""


@attrs.define
class Figures:
    """What a part has found, and why it has nothing of some contenders."""

    found: dict[str, Any] = attrs.field(factory=dict)
    """A value of each round by contender, unless the part says otherwise."""
    failed: dict[str, str] = attrs.field(factory=dict)
    left_out: dict[str, str] = attrs.field(factory=dict)
    """Who cannot do this at all, or is not there."""


@contextmanager
def awake(contender: Contender) -> Iterator[None]:
    """Let a contender run; everybody else is held still."""
    process = contender.process
    assert process is not None, "start comes first"
    process.resume()
    try:
        yield
    finally:
        process.pause()


def take_turns(
    contenders: Sequence[Contender],
    rounds: int,
    measure: Callable[[Contender, int], Any],
    say: Say,
) -> Figures:
    """`measure(contender, round)` of each, in every other round the other way round.

    Of a contender that fails in one round, no round counts; one that gave no answer in time is
    ended, so that it costs the time of one answer and not that of many.
    """
    figures = Figures()
    for number in range(rounds):
        for contender in contenders[:: -1 if number % 2 else 1]:
            name = contender.name
            if name in figures.failed or name in figures.left_out:
                continue
            try:
                with awake(contender):
                    value = measure(contender, number)
            except Unsupported as error:
                figures.left_out[name] = str(error)
            except FAILURES as error:
                figures.found.pop(name, None)
                figures.failed[name] = explained(contender, error)
                say(f"round {number + 1}: {name} FAILED: {figures.failed[name]}")
            else:
                figures.found.setdefault(name, []).append(value)
    return figures


def explained(contender: Contender, error: Exception) -> str:
    """The reason in a line: how the process ended if it has, else what the error says."""
    process = contender.process
    if isinstance(error, TimeoutError) and process is not None:
        process.stop()
    elif process is not None and not process.running:
        return process.fate()
    return f"{type(error).__name__}: {error}"
