"""`pie run` with components: what is shown where, messages both ways, endings."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Ran
from .support import PROBE, environment, pie_process, returning

Pie = Callable[..., Ran]
pytestmark = pytest.mark.slow
PATIENCE = 120
"""Seconds until a process that hangs is given up; nothing is concluded from less."""


@pytest.fixture
def probe(pie: Pie, shared_home: Path, tiny_model: Path) -> Callable[..., Ran]:
    """Run the probe of these tests, whose build the shared home keeps."""

    def run(*arguments: str, options: tuple[str, ...] = ()) -> Ran:
        return pie("run", PROBE, "--model", tiny_model, *options, "--", *arguments)

    return run


@pytest.mark.usefixtures("home")
def test_a_component_file_is_compiled_once_and_its_value_is_shown(
    pie: Pie, tmp_path: Path, tiny_model: Path, home: Path
) -> None:
    (tmp_path / "good.wat").write_text(returning("naïve"))

    first = pie("run", tmp_path / "good.wat", "--model", tiny_model)
    compiled = list((home / "cache" / "compiled").iterdir())
    second = pie("run", tmp_path / "good.wat", "--model", tiny_model)

    assert first == second == Ran(0, "naïve\n", "")
    assert list((home / "cache" / "compiled").iterdir()) == compiled
    assert len(compiled) == 1


_RUN = """
import sys
from pie.cli import command
assert command(sys.argv[1:]) == 0
print({"torch", "gguf", "inferlet", "jinja2", "pie.kernels.cpu.compiler"} & set(sys.modules))
"""


def test_a_packed_model_starts_without_what_it_does_not_need(
    tmp_path: Path, tiny_model: Path
) -> None:
    """What torch and the compiler cost a start is most of what there would be to wait for."""
    pytest.importorskip("llvmlite")
    (tmp_path / "good.wat").write_text(returning("fine"))
    line = [sys.executable, "-c", _RUN, "run", tmp_path / "good.wat", "--model", tiny_model]
    runs = [
        subprocess.run(
            list(map(str, line)),
            env=environment(tmp_path / "home"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        for _ in range(2)
    ]
    assert [run.stderr for run in runs] == ["", ""]
    assert runs[0].stdout == "fine\n{'pie.kernels.cpu.compiler'}\n", "kernels are compiled once"
    assert runs[1].stdout == "fine\nset()\n"


@pytest.mark.usefixtures("home")
def test_an_error_of_run_is_the_reason(pie: Pie, tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "bad.wat").write_text(returning("no luck", error=True))

    ran = pie("run", tmp_path / "bad.wat", "--model", tiny_model)

    assert ran == Ran(1, "", "pie: no luck\n")


def test_each_stream_goes_where_it_belongs(probe: Pie) -> None:
    ran = probe("both")

    assert ran.code == 0
    assert ran.out == "to stdout\na message\nthe value\n"
    assert ran.err == "to stderr\npie: got a blob of 5 bytes; --json shows it\n"


def test_json_has_everything(probe: Pie) -> None:
    ran = probe("both", options=("--json", "--stats"))
    report: dict[str, Any] = json.loads(ran.out)
    stats = report.pop("stats")

    assert ran.code == 0
    assert ran.err == ""
    assert report == {
        "status": "completed",
        "return": "the value",
        "stdout": "to stdout\n",
        "stderr": "to stderr\n",
        "messages": ["a message"],
        "blobs": [base64.b64encode(b"\0blob").decode()],
        "error": None,
    }
    assert stats["tokens"] == stats["passes"] == 0


def test_json_tells_of_a_failure(probe: Pie) -> None:
    ran = probe("fail", "no", "luck", options=("--json",))
    report = json.loads(ran.out)

    assert ran.code == 1
    assert ran.err == ""
    assert (report["status"], report["return"], report["error"]) == ("exception", None, "no luck")


def test_an_inferlet_that_needs_arguments_says_which(probe: Pie) -> None:
    ran = probe()

    assert ran.code == 1
    assert ran.err.startswith("pie: the first argument is one of echo, say, ")
    assert ran.err.count("\n") == 1


def test_figures_are_of_the_run(probe: Pie) -> None:
    shown = probe("generate", options=("--stats", "--dtype", "float32"))
    exact = ("--json", "--seed", "7", "--dtype", "float32")
    report = json.loads(probe("generate", options=exact).out)

    assert shown.code == 0
    assert shown.err.startswith("pie: 5 tokens in ")
    assert shown.out.rstrip("\n") == report["return"].rstrip("\n")
    assert report["stats"]["tokens"] == report["stats"]["passes"] == 5
    assert report["stats"]["pages_peak"] == 1


def test_messages_given_come_before_the_end_of_input(probe: Pie) -> None:
    """Under pytest stdin is empty, so the third receive finds that nobody will send."""
    ran = probe("echo", options=("--send", "one", "--send", "two"))

    assert ran.out == "echo one\necho two\n"
    assert ran.err == "pie: no client will send\n"
    assert ran.code == 1


@pytest.fixture
def started(shared_home: Path, tiny_model: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start the probe in a process of its own."""

    def start(*arguments: str, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        return pie_process("run", PROBE, "--model", tiny_model, *options, "--", *arguments)

    return start


Started = Callable[..., "subprocess.Popen[str]"]


def test_lines_of_stdin_are_messages(started: Started) -> None:
    with started("echo", options=("--send", "first")) as process:
        out, err = process.communicate("second\n\nthird with ünïcode\nquit", timeout=PATIENCE)

    assert out == "echo first\necho second\necho \necho third with ünïcode\n4 messages\n"
    assert err == ""
    assert process.returncode == 0


def test_a_conversation_needs_no_end_of_input(started: Started) -> None:
    """Neither the answers nor the exit wait for a stdin that stays open."""
    with started("echo") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for text in ("one", "two"):
            process.stdin.write(f"{text}\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"echo {text}\n"
        process.stdin.write("quit\n")
        process.stdin.flush()
        assert process.wait(timeout=PATIENCE) == 0
        assert process.stdout.read() == "2 messages\n"


def test_stdin_that_is_not_text_is_refused(started: Started) -> None:
    with started("echo") as process:
        assert process.stdin is not None
        os.write(process.stdin.fileno(), b"fine\n\xff\n")
        _, err = process.communicate(timeout=PATIENCE)

    assert err == "pie: line 2 of stdin is not UTF-8: invalid start byte\n"
    assert process.returncode == 2


@pytest.mark.parametrize(
    ("mode", "said"), [("wait", "waiting\n"), ("spin", "spinning\n")], ids=["waiting", "spinning"]
)
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"]
)
def test_a_signal_ends_it_cleanly(
    started: Started, mode: str, said: str, number: signal.Signals, code: int
) -> None:
    with started(mode) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == said
        assert process.stderr is not None
        process.send_signal(number)
        process.wait(timeout=PATIENCE)  # with stdin open: its end would be another reason
        out, err = process.stdout.read(), process.stderr.read()

    assert out == ""
    assert err == f"pie: aborted: interrupted by {number.name}\n"
    assert process.returncode == code


def test_an_interruption_while_loading_is_quiet(started: Started) -> None:
    with started("wait") as process:
        maps = Path(f"/proc/{process.pid}/maps")
        while "libwasmtime" not in maps.read_text():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)

    assert "Traceback" not in err
    assert process.returncode == 130, err


def test_an_interrupted_build_leaves_nothing(tmp_path: Path, tiny_model: Path) -> None:
    """It takes the longest of all, and is not waited for."""
    (tmp_path / "app.py").write_text("async def main(args): return ''\n")
    home = tmp_path / "home"
    with pie_process("run", tmp_path, "--model", tiny_model, home=home) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not children.read_text():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)

    assert (process.returncode, out, err) == (130, "", "")
    assert not list(home.rglob("*.wasm"))


def test_a_reader_that_goes_away_ends_it(started: Started) -> None:
    with started("flood") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        process.stdout = None
        _, err = process.communicate(timeout=PATIENCE)

    assert err == ""
    assert process.returncode == 1
