"""One command queue: passes and barriers, first in, first out (contract Q1, Q2).

A queue is an object of the scheduler, not an actor: published programs open a hundred in a dozen
tokens, and an idle one must cost nothing (see docs/decisions/0001).
"""

from __future__ import annotations

from collections import deque
from typing import Any

import attrs

from .passes import Pending


@attrs.frozen(eq=False)
class Barrier:
    """Answered when everything in front of it is done; `token` is the shell's."""

    token: Any


@attrs.define(eq=False)
class CommandQueue:
    """What of a queue is not finished, in order of submission."""

    _line: deque[Pending | Barrier] = attrs.field(factory=deque)
    _passes: int = 0
    _failed: bool = False
    """Whether a pass has failed since the last barrier was answered."""

    def next_number(self) -> int:
        """The number of the pass about to be submitted."""
        number = self._passes
        self._passes += 1
        return number

    def last(self) -> Pending | None:
        """The unfinished entry that a new one has to stay behind."""
        for entry in reversed(self._line):
            if not isinstance(entry, Barrier):
                return None if entry.finished else entry
        return None

    def append(self, entry: Pending | Barrier) -> None:
        self._line.append(entry)

    def advance(self) -> list[tuple[Any, bool]]:
        """Drop what is done; returns the barriers reached as (token, nothing in front failed)."""
        reached: list[tuple[Any, bool]] = []
        while self._line:
            entry = self._line[0]
            if isinstance(entry, Barrier):
                reached.append((entry.token, not self._failed))
                self._failed = False
            elif not entry.finished:
                break
            elif entry.error is not None:
                self._failed = True
            self._line.popleft()
        return reached

    def barriers(self) -> list[Any]:
        """The tokens of the barriers that have not been reached."""
        return [entry.token for entry in self._line if isinstance(entry, Barrier)]
