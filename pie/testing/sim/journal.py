"""The event log of a run: every line hashed, the last ones kept."""

from __future__ import annotations

import hashlib
from collections import deque
from typing import Any, TextIO

import attrs
import trio

KEPT = 60
"""Last lines that a failure shows."""
MOST = 400_000
"""Lines of one run: more means that it goes round in circles."""


@attrs.define(eq=False)
class Journal:
    """Lines of time and text, in the order in which things happened.

    Texts say nothing that differs from process to process: no address, no path, no hash order.
    """

    file: TextIO | None = None
    lines: int = 0
    _last: deque[str] = attrs.field(factory=lambda: deque(maxlen=KEPT))
    _hash: Any = attrs.field(factory=hashlib.sha256)
    _began: float | None = None

    def note(self, text: str) -> None:
        """Something happened now."""
        now = trio.current_time()
        if self._began is None:
            self._began = now
        line = f"{now - self._began:.9f} {text}\n"
        self._hash.update(line.encode())
        self._last.append(line)
        self.lines += 1
        if self.file is not None:
            self.file.write(line)
        assert self.lines < MOST, f"{MOST} events and no end"

    @property
    def digest(self) -> str:
        """SHA-256 of all lines so far."""
        digest: str = self._hash.hexdigest()
        return digest

    @property
    def tail(self) -> str:
        """The last lines."""
        return "".join(self._last)
