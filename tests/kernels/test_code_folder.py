"""Where machine code is kept: never stale, never somebody else's, shared by processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("llvmlite", reason="the extra [cpu] is not installed")

import llvmlite.binding as llvm

from pie.errors import UsageError
from pie.kernels.cpu import code_folder as module
from pie.kernels.cpu.code_folder import code_folder, code_key, keep, kept, machine_code
from pie.kernels.cpu.target import named

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty PIE_HOME, for which no folder has been made yet."""
    monkeypatch.setenv("PIE_HOME", str(tmp_path))
    code_folder.cache_clear()
    yield tmp_path
    code_folder.cache_clear()


def test_the_folder_is_for_its_owner_alone(home: Path) -> None:
    before = os.umask(0)
    try:
        folder = code_folder()
    finally:
        os.umask(before)
    assert folder == home / "cache" / "kernels" / code_key()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder.parent.stat().st_mode & 0o777 == 0o700


def test_without_pie_home_it_is_in_the_users_folder_for_caches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PIE_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/where")
    assert machine_code() == Path("/some/where/pie/cache/kernels")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/otter")
    assert machine_code() == Path("/home/otter/.cache/pie/cache/kernels")


def test_another_source_is_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "cpu"
    shutil.copytree(Path(module.__file__).parent, package)
    monkeypatch.setattr(module, "__file__", str(package / "code_folder.py"))
    keys = [code_key()]
    os.utime(package / "emit.py", (1, 1))
    assert code_key() == keys[0], "a date says nothing"
    source = package / "emit.py"
    text = source.read_text()
    source.write_text(text.replace("0.693359375", "0.693359376"))
    keys.append(code_key())
    source.write_text(text)
    assert code_key() == keys[0]
    source.rename(package / "omit.py")
    keys.append(code_key())
    (package / "new.py").touch()
    keys.append(code_key())
    assert len(set(keys)) == 4


def test_another_version_processor_or_target_is_another_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = {code_key()}
    with monkeypatch.context() as patch:
        patch.setattr(module, "version", lambda name: f"1 of {name}")
        keys.add(code_key())
    with monkeypatch.context() as patch:
        patch.setattr(llvm, "get_host_cpu_name", lambda: "abacus")
        keys.add(code_key())
    for features in ({}, {"beads": True}):
        with monkeypatch.context() as patch:
            patch.setattr(module, "host_features", lambda f=features: f)
            keys.add(code_key())
    for target in (named("portable8"), named("portable16"), None):
        with monkeypatch.context() as patch:
            patch.setattr(module, "detect", lambda t=target: t)
            keys.add(code_key())
    assert len(keys) == 8


def test_a_folder_of_somebody_else_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code_folder()
    code_folder.cache_clear()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(UsageError, match=r"kernels must be a folder of user 12345"):
        code_folder()


def test_a_link_to_a_folder_is_refused(home: Path) -> None:
    (home / "elsewhere").mkdir(mode=0o700)
    (home / "cache").mkdir()
    (home / "cache" / "kernels").symlink_to(home / "elsewhere")
    with pytest.raises(UsageError, match="must be a folder of user"):
        code_folder()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_may_write_to_is_refused(home: Path, mode: int) -> None:
    """Whatever mode it gets now: somebody may have put code there."""
    folder = code_folder()
    code_folder.cache_clear()
    folder.chmod(mode)
    with pytest.raises(UsageError, match="can be written to by others"):
        code_folder()


def test_a_home_that_is_no_folder_is_wrong_use(home: Path) -> None:
    (home / "cache").touch()
    with pytest.raises(UsageError, match=r"no machine code can be kept in .* PIE_HOME"):
        code_folder()


def test_old_folders_go_unless_they_may_be_in_use(home: Path) -> None:
    base = machine_code()
    base.mkdir(mode=0o700, parents=True)
    now = base.stat().st_mtime
    for name, age in (("a", 10), ("b", 20), ("c", 30), ("d", 40), ("e", 9000), ("f", 8000)):
        (base / name).mkdir()
        (base / name / "code").touch()
        os.utime(base / name, (now - age, now - age))
    folder = code_folder()
    assert {path.name for path in base.iterdir()} == {*"abcd", folder.name}


def test_what_is_kept_comes_back_and_what_is_damaged_does_not(tmp_path: Path) -> None:
    path = tmp_path / "code"
    assert kept(path) is None
    keep(path, b"push pop ret")
    assert kept(path) == b"push pop ret"
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:5], b"", b"\x00" + whole[1:], whole[:-1] + b"x"):
        path.write_bytes(damaged)
        assert kept(path) is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["code"]


def test_code_that_cannot_be_kept_is_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep(tmp_path / "gone" / "code", b"ret")
    assert "machine code is not kept" in caplog.text
    (tmp_path / "code").mkdir()
    keep(tmp_path / "code", b"ret")
    assert [entry.name for entry in tmp_path.iterdir()] == ["code"], "a part of it was left"


PROGRAM = """
import numpy as np
from pie.kernels.cpu.arrays import address
from pie.kernels.cpu.sampling import examine

row = np.zeros(20, np.float32)
assert examine(address(row), len(row), 0.0) == 1
row[7] = np.inf
assert examine(address(row), len(row), 0.0) == 0
"""


def start(home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PIE_HOME": str(home)},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    _, error = process.communicate(timeout=240)
    assert process.returncode == 0, error


def test_processes_share_what_they_compile_and_mend_what_is_damaged(tmp_path: Path) -> None:
    for process in [start(tmp_path) for _ in range(2)]:
        finish(process)
    (path,) = (tmp_path / "cache" / "kernels").rglob("*.o")
    before, whole = path.stat().st_ino, path.read_bytes()
    finish(start(tmp_path))
    assert path.stat().st_ino == before, "compiled again"
    path.write_bytes(whole[:-100])
    finish(start(tmp_path))
    assert kept(path) is not None
