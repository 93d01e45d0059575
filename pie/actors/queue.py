"""One command queue: passes and barriers, first in, first out (contract Q1, Q2).

A queue is an object of the scheduler, not an actor: published programs open a hundred in a dozen
tokens, and an idle one must cost nothing (see docs/decisions/0001).
"""

from __future__ import annotations

from collections import deque
from typing import Any

import attrs

from pie.probes import sometimes

from .decodings import PendingDecoding
from .passes import Pending, PendingPass


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
    _open: PendingDecoding | None = None
    """A decoding that is not over: how many passes it is, is not known yet."""
    _ended: PendingDecoding | None = None
    """The decoding that had the last numbers, if it is over."""
    _unnumbered: deque[PendingPass] = attrs.field(factory=deque)
    """Passes behind the open decoding: none of them can run before it is over."""

    def number(self, work: PendingPass) -> None:
        """Give a pass its number among the queue's, now or when those in front have theirs."""
        if self._open is not None:
            self._unnumbered.append(work)
            return
        self._ended = None
        work.number = self._passes
        if isinstance(work, PendingDecoding):
            self._open, work.first_number = work, work.number
        else:
            self._passes += 1

    def counted(self, decoding: PendingDecoding) -> None:
        """A decoding is over: number what is behind it. One that never had a number is none."""
        if decoding is not self._open:
            self._unnumbered.remove(decoding)
            return
        self._passes = decoding.first_number + decoding.count
        self._open, self._ended = None, decoding
        while self._unnumbered and self._open is None:
            self.number(self._unnumbered.popleft())

    def recount(self, token: Any, count: int) -> None:
        """The decoding of this token turns out to be fewer passes, if nobody has gone by it yet."""
        if self._ended is not None and self._ended.token is token:
            sometimes("a decoding is cancelled after its end")
            self._passes = self._ended.first_number + count

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
