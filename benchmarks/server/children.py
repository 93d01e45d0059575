"""Processes that answer lines with lines of JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

_ROOT = Path(__file__).parents[2]


class Child:
    """A module of the benchmark in a process of its own, killed at the end of the context."""

    def __init__(self, module: str, *arguments: str, log: Path | None = None) -> None:
        """What it writes to stderr goes to the file `log`, or where ours goes."""
        self._log = log.open("wb") if log is not None else None
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.server.{module}", *arguments],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()
        if self._log is not None:
            self._log.close()

    def tell(self, order: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        """Its next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()}")
        return json.loads(line)

    def ask(self, order: str) -> Any:
        self.tell(order)
        return self.hear()

    @property
    def running(self) -> bool:
        return self._process.poll() is None
