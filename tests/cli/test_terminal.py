"""On a terminal: progress that vanishes, typed lines, Ctrl-C, and jobs in the background."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest

from .support import COMMAND, PROBE
from .terminal import on_a_terminal

pytestmark = pytest.mark.slow


def test_progress_is_shown_and_taken_away(shared_home: Path, tiny_model: Path) -> None:
    with on_a_terminal(*COMMAND, "run", PROBE, "--model", tiny_model, "--", "say", "42") as screen:
        assert screen.end() == 0

    assert "loading probe-" in screen.seen
    assert f"and {tiny_model}" in screen.seen.replace("\r\n", "")
    last = re.split(r"\x1b\[2K", screen.seen)[-1]
    assert re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", last).strip() == "42"


def test_typed_lines_are_messages_and_ctrl_c_ends_it(shared_home: Path, tiny_model: Path) -> None:
    with on_a_terminal(*COMMAND, "run", PROBE, "--model", tiny_model, "--", "echo") as screen:
        screen.read_until("loading")
        screen.type("hello\n")
        screen.read_until("echo hello")
        screen.type("\x03")
        assert screen.end() == 128 + signal.SIGINT

    assert "pie: aborted: interrupted by SIGINT" in screen.seen
    assert "Traceback" not in screen.seen


def test_a_job_in_the_background_is_not_stopped_by_its_terminal(
    shared_home: Path, tiny_model: Path
) -> None:
    """Reading there would stop it for ever, with nothing to see."""
    job = [*COMMAND, "run", str(PROBE), "--model", str(tiny_model), "--", "echo"]
    code = (
        "import os, subprocess, sys\n"
        f"job = subprocess.Popen({job!r}, process_group=0)\n"
        "status = os.waitid(os.P_PID, job.pid, os.WEXITED | os.WSTOPPED)\n"
        "print('stopped' if status.si_code == os.CLD_STOPPED else f'ended {status.si_status}')\n"
        "job.kill()\n"
    )
    with on_a_terminal(sys.executable, "-c", code) as screen:
        screen.end()

    assert "pie: no client will send" in screen.seen
    assert "ended 1" in screen.seen
