"""Commands on a terminal that the test holds the other end of."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from .support import environment

# Makes its stdin the terminal that controls it, as a login does, and becomes the command.
LOGIN = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execv(sys.argv[1], sys.argv[1:])"
)


@attrs.define
class Terminal:
    """A process whose terminal we hold the other end of."""

    process: subprocess.Popen[bytes]
    descriptor: int
    seen: str = ""

    def read_until(self, text: str) -> None:
        """Read until `text` is on the screen; the process may not end before."""
        while text not in self.seen:
            self.seen += os.read(self.descriptor, 4096).decode(errors="replace")

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def end(self) -> int:
        """Read the rest; the exit code."""
        try:
            while data := os.read(self.descriptor, 4096):
                self.seen += data.decode(errors="replace")
        except OSError:  # EIO: nobody holds the other end any more
            pass
        return self.process.wait()


@contextmanager
def on_a_terminal(*command: str | Path, home: Path | None = None) -> Iterator[Terminal]:
    """Run `command` as the foreground job of a new terminal."""
    descriptor, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", LOGIN, *map(str, command)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env=environment(home) | {"TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(theirs)
    try:
        yield Terminal(process, descriptor)
    finally:
        os.close(descriptor)
        process.kill()
        process.wait()
