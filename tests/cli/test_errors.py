"""Bad input is one line that says what and where; only our own bugs show a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pie.batch import Batch, BatchResult
from pie.cli import command
from pie.devices import StartedModel
from pie.errors import GuestError, ModelError, UsageError

from .conftest import Ran
from .support import COMMAND, PROBE, returning

Pie = Callable[..., Ran]


def one_line(ran: Ran, code: int) -> str:
    """The reason, after checking that it is all there is."""
    assert ran.out == ""
    assert ran.err.startswith("pie: ")
    assert ran.err.count("\n") == 1, ran.err
    assert ran.code == code
    return ran.err.removeprefix("pie: ").rstrip("\n")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("frob", "No such command 'frob'."),
        ("run", "Missing argument 'NAME|DIR|FILE.wasm'."),
        ("build", "Missing argument 'DIR'."),
        ("model pull", "Missing argument 'NAME'."),
        ("run x --prompt hi", "No such option: --prompt Options of an inferlet come after `--`."),
        ("run x --seed high", "'--seed'"),
        ("run x --dtype float16", "'float16' is not one of 'float32', 'bfloat16', 'auto'"),
        ("run nothing", "no inferlet 'nothing'; the library has"),
        ("run ./nothing", "./nothing: no such file or folder"),
        ("run nothing.wasm", "nothing.wasm: no such file or folder"),
    ],
)
@pytest.mark.usefixtures("home")
def test_wrong_use_is_exit_code_2(pie: Pie, line: str, reason: str) -> None:
    assert reason in one_line(pie(*line.split()), 2)


@pytest.mark.usefixtures("home")
def test_no_command_at_all_shows_the_help(pie: Pie) -> None:
    ran = pie()

    assert ran.code == 2
    assert "Usage: pie" in ran.out + ran.err


@pytest.mark.usefixtures("home")
def test_a_folder_without_an_app_is_named(pie: Pie, tmp_path: Path) -> None:
    assert f"{tmp_path} is a folder without an app.py" in one_line(pie("run", tmp_path), 2)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"hello", "bad.wasm: not WebAssembly: it begins with b'hell'"),
        (b"", "bad.wasm: not WebAssembly: it begins with b''"),
        (b"\0asm\1\0\0\0", "bad.wasm: a core module, not a component"),
        (b"\0asm\x0d\0\1\0", "bad.wasm: no inferlet: it does not export inferlet:core/run"),
        (b"\0asm\x0d\0\1\0\xff", "bad.wasm: not a valid component"),
        (
            returning(
                "", imported='(import "inferlet:core/kvs" (instance (export "store-get" (func))))'
            ).encode(),
            "bad.wasm: it imports inferlet:core/kvs#store-get with 0 parameters",
        ),
    ],
)
@pytest.mark.usefixtures("home")
def test_what_is_no_inferlet_is_refused(
    pie: Pie, tmp_path: Path, tiny_model: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "bad.wasm").write_bytes(content)

    ran = pie("run", tmp_path / "bad.wasm", "--model", tiny_model)

    assert reason in one_line(ran, 1)


@pytest.mark.usefixtures("home")
def test_an_unreadable_component_is_named(pie: Pie, tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "loop.wasm").symlink_to(tmp_path / "loop.wasm")

    ran = pie("run", tmp_path / "loop.wasm", "--model", tiny_model)

    assert "loop.wasm" in one_line(ran, 2)


@pytest.mark.parametrize("line", [("--send", "\udcff"), ("--", "\udcff")])
@pytest.mark.usefixtures("home")
def test_arguments_that_are_not_text_are_refused(pie: Pie, line: tuple[str, str]) -> None:
    assert "not UTF-8" in one_line(pie("run", PROBE, *line), 2)


@pytest.mark.parametrize("name", ["nothing", "nothing.gguf", "hf:nothing", "hf:no/thing"])
@pytest.mark.usefixtures("home")
def test_an_unknown_model_is_named(pie: Pie, tmp_path: Path, name: str) -> None:
    (tmp_path / "good.wat").write_text(returning("fine"))

    assert name in one_line(pie("run", tmp_path / "good.wat", "--model", name), 1)


@pytest.mark.parametrize("size", [0, 3, 100, 5000])
@pytest.mark.usefixtures("home")
def test_a_corrupt_model_file_is_named(
    pie: Pie, tmp_path: Path, tiny_model: Path, size: int
) -> None:
    (tmp_path / "good.wat").write_text(returning("fine"))
    (tmp_path / "cut.gguf").write_bytes(tiny_model.read_bytes()[:size])

    ran = pie("run", tmp_path / "good.wat", "--model", tmp_path / "cut.gguf")

    assert "cut.gguf" in one_line(ran, 1)


@pytest.mark.usefixtures("home")
def test_an_output_that_cannot_be_written_is_found_before_the_work(
    pie: Pie, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text("async def main(args): return ''\n")
    (tmp_path / "file").write_text("")

    onto_folder = pie("build", tmp_path, "-o", tmp_path)
    into_file = pie("build", tmp_path, "-o", tmp_path / "file" / "out.wasm")

    assert f"cannot write {tmp_path}: it is a folder" in one_line(onto_folder, 2)
    assert "is not a folder we may write in" in one_line(into_file, 2)


@pytest.mark.usefixtures("home")
def test_a_source_error_names_file_and_line(pie: Pie, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("x = 1\nx = = 2\n")

    ran = pie("build", tmp_path, "-o", tmp_path / "out.wasm")

    assert f"{tmp_path / 'app.py'}:2: invalid syntax" in one_line(ran, 1)


def test_a_home_that_cannot_be_made_is_named(
    pie: Pie, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PIE_HOME", str(tmp_path / "file" / "home"))

    assert f"cannot make {tmp_path}/file/home, which PIE_HOME decides" in one_line(
        pie("model", "list"), 2
    )


@pytest.mark.usefixtures("home")
class TestErrorsOutOfACommand:
    """Whatever a command raises has an addressee or is ours."""

    def fails_with(
        self, error: BaseException, monkeypatch: pytest.MonkeyPatch, *arguments: str
    ) -> int:
        def show_models(home: object) -> int:
            raise error

        monkeypatch.setattr("pie.cli.model.show_models", show_models)
        return command(["model", "list"])

    def test_our_own_bug_shows_its_traceback(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert self.fails_with(ZeroDivisionError("ours"), monkeypatch) == 70
        err = capfd.readouterr().err
        assert "Traceback" in err
        assert "ZeroDivisionError: ours" in err

    def test_a_bug_beside_an_addressed_error_is_not_hidden(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        group = ExceptionGroup("both", [ModelError("theirs"), ZeroDivisionError("ours")])

        assert self.fails_with(group, monkeypatch) == 70
        assert "ZeroDivisionError: ours" in capfd.readouterr().err

    def test_a_group_of_one_error_reads_like_the_error(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        group = ExceptionGroup("nursery", [ExceptionGroup("inner", [GuestError("the reason")])])

        assert self.fails_with(group, monkeypatch) == 1
        assert capfd.readouterr().err == "pie: the reason\n"

    def test_misuse_has_its_own_exit_code(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.fails_with(UsageError("wrong"), monkeypatch) == 2

    def test_ctrl_c_has_its_own_exit_code(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.fails_with(KeyboardInterrupt(), monkeypatch) == 130


@pytest.mark.slow
@pytest.mark.usefixtures("shared_home")
def test_a_bug_in_an_actor_stops_the_engine_with_70(
    pie: Pie, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """State that all share is no longer trusted then."""

    async def broken(model: StartedModel, batch: Batch) -> BatchResult:
        raise LookupError("an actor fell over")

    monkeypatch.setattr(StartedModel, "run", broken)

    ran = pie("run", PROBE, "--model", tiny_model, "--", "generate")

    assert ran.code == 70
    assert "LookupError: an actor fell over" in ran.err


def test_the_command_line_starts_light() -> None:
    """`pie --help` must not wait for torch."""
    code = (
        "import sys; from pie.cli import command; command(['--version']);"
        "print({'torch', 'wasmtime', 'numpy', 'trio', 'rich.progress'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "set()"


def test_a_reader_that_goes_away_is_no_bug(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, "model", "list"],
        stdout=writing,
        stderr=subprocess.PIPE,
        env={**os.environ, "PIE_HOME": str(tmp_path)},
        check=False,
    )
    os.close(writing)

    assert done.stderr == b""
    assert done.returncode == 1
