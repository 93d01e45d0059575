"""Streams trace events to a file, off the loop, with a bounded backlog."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Lock
from typing import TextIO

import attrs
import trio

from pie.errors import UsageError
from pie.offload import Offload
from pie.signals import Signal, wait_any

from .format import Event, Lines

CHUNK = 1024
"""Events that are handed to the thread at once."""
BACKLOG = 1 << 16
"""Events, about 30 MiB, beyond which the loop writes itself: a slow disk then slows the engine,
since a record with holes could not be replayed."""


@attrs.define(eq=False)
class Writer:
    """Collects events and writes them. The file is one JSON array, whole once it is closed."""

    path: Path
    _file: TextIO
    _lines: Lines
    _offload: Offload
    _events: list[Event] = attrs.field(factory=list)
    _chunks: deque[list[Event]] = attrs.field(factory=deque)
    _filled: Signal = attrs.field(factory=Signal)
    _lock: Lock = attrs.field(factory=Lock)
    error: OSError | None = None
    """Why nothing is written any more."""

    def put(self, event: Event) -> None:
        """Write `event`, some time soon."""
        events = self._events
        events.append(event)
        if len(events) == CHUNK:
            self._filled.set()
        elif len(events) >= BACKLOG:
            self._hand_over()
            self._write()

    def _hand_over(self) -> None:
        """Only on the loop; `_write` may be running in a thread."""
        self._chunks.append(self._events)
        self._events = []

    def _write(self) -> None:
        with self._lock:
            try:
                while self._chunks:
                    events = self._chunks.popleft()
                    if self.error is None:
                        self._file.write(self._lines.of(events))
                        self._file.flush()
            except OSError as error:
                self.error = error

    async def run(self) -> None:
        """Write whenever there is a chunk."""
        while True:
            await wait_any((self._filled,))
            self._filled.clear()
            self._hand_over()
            await self._offload(self._write)

    def close(self) -> None:
        """Write what is left and end the file; UsageError if anything could not be written."""
        self._hand_over()
        self._write()
        try:
            if self.error is None:
                self._file.write("\n]\n")
            self._file.close()
        except OSError as error:
            self.error = self.error or error
        if self.error is not None:
            raise UsageError(f"cannot write the trace {self.path}: {self.error.strerror}")


@asynccontextmanager
async def writing(path: Path, first: str, lines: Lines, offload: Offload) -> AsyncIterator[Writer]:
    """A writer to a new file that begins with the line `first`; ended whatever happens inside.

    UsageError if the file cannot be made, at once, or written, at the end.
    """
    try:
        file = path.open("w", encoding="utf-8", newline="\n")
        file.write(f"[\n{first}")
    except OSError as error:
        raise UsageError(f"cannot write the trace {path}: {error.strerror}") from error
    writer = Writer(path, file, lines, offload)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            yield writer
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await offload(writer.close)
