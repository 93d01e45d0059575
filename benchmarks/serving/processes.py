"""Processes of their own that can be held still, so that only one of several runs at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
START_SECONDS = 900.0
"""A first start compiles, on machines that others may use, too."""
ANSWER_SECONDS = 240.0
"""Many times what an answer takes; who needs more is given up."""
_END_SECONDS = 10.0


class Process:
    """A process with all that it starts, in a session of its own; killed at the end.

    What it writes to stderr, and to stdout unless `talks`, goes to the file `log`.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        talks: bool = False,
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        self._file = log.open("wb")
        self._process = subprocess.Popen(
            list(command),
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else self._file,
            stderr=self._file,
            text=True,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def pause(self) -> None:
        """Hold it still, with its children."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it and its children; again does nothing."""
        if self._file.closed:
            return
        for number in (signal.SIGCONT, signal.SIGTERM):
            self._signal(number)
        with suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=_END_SECONDS)
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._file.close()

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return

    def fate(self) -> str:
        """How it ended, with the last line of its log."""
        with suppress(subprocess.TimeoutExpired):  # it may have closed its output and live on
            self._process.wait(_END_SECONDS)
        lines = self.log.read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
        return f"ended with {self._process.returncode}: {last[-300:]}"

    def ask(self, order: Any, seconds: float = ANSWER_SECONDS) -> Any:
        """Tell it a line of JSON and hear one; TimeoutError as `hear` has it."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise RuntimeError(self.fate()) from None
        return self.hear(seconds)

    def hear(self, seconds: float) -> Any:
        """Its next line of JSON; RuntimeError with its fate if it has ended.

        If nothing comes for so long it is killed, since nothing else ends the reading of a line,
        and TimeoutError says so.
        """
        assert self._process.stdout is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._signal(signal.SIGKILL)

        timer = threading.Timer(seconds, give_up)
        timer.start()
        try:
            for line in self._process.stdout:
                if line.startswith(("{", "[")):
                    return json.loads(line)
        finally:
            timer.cancel()
        if late.is_set():
            raise TimeoutError(f"no answer within {seconds:g} s")
        raise RuntimeError(self.fate())


class Timed:
    """A context that measures its seconds."""

    seconds: float = 0.0

    def __enter__(self) -> Timed:
        self._began = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = time.perf_counter() - self._began
