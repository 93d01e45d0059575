"""The clock of epoch preemption.

A Python thread is enough: guests run with the interpreter lock released, so it gets its turn.
"""

from __future__ import annotations

import threading
from typing import Any

from . import _capi


class Ticker:
    """A thread that advances an engine's epoch every `seconds` while guests live."""

    def __init__(self, engine: Any, seconds: float) -> None:
        self.ticks = 0
        self._engine, self._seconds = engine, seconds
        self._stop, self._wanted = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def run(self) -> None:
        self._wanted.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._tick, name="pie epochs", daemon=True)
            self._thread.start()

    def rest(self) -> None:
        self._wanted.clear()

    def close(self) -> None:
        self._stop.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()

    def _tick(self) -> None:
        engine = _capi.address(self._engine)
        while self._wanted.wait() and not self._stop.wait(self._seconds):
            _capi.increment_epoch(engine)
            self.ticks += 1
