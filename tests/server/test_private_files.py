"""Files that are for their owner alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pie.errors import UsageError
from pie.server.private_files import locked, read_private, stamp_of, write_private


@pytest.fixture(autouse=True)
def _generous_umask() -> Iterator[None]:
    """Everything would be readable by everybody if nobody took care."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def refusal(path: Path, limit: int = 100) -> str:
    with pytest.raises(UsageError) as caught:
        read_private(path, limit)
    return str(caught.value)


def test_what_is_written_is_private_and_read_again(tmp_path: Path) -> None:
    write_private(tmp_path / "file", b"one")
    write_private(tmp_path / "file", b"two")

    assert mode(tmp_path / "file") == 0o600
    assert read_private(tmp_path / "file", 3)[0] == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_no_file_is_ever_there_with_another_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even for the moment between making it and writing it."""
    seen: list[int] = []

    def looking(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            seen.extend(mode(path) for path in tmp_path.iterdir())
            return function(*arguments)

        return call

    monkeypatch.setattr(os, "fsync", looking(os.fsync))
    monkeypatch.setattr(os, "replace", looking(os.replace))
    with locked(tmp_path / "file"):
        write_private(tmp_path / "file", b"one")
        write_private(tmp_path / "file", b"two")

    assert len(seen) > 4
    assert set(seen) == {0o600}


@pytest.mark.parametrize("wrong", [0o644, 0o660, 0o601, 0o700, 0o604])
def test_a_file_that_others_can_use_is_refused_with_both_modes(tmp_path: Path, wrong: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    path.chmod(wrong)

    assert refusal(path) == f"{path} has mode 0{wrong:o} instead of 0600: chmod 600 {path}"


def test_a_file_of_somebody_else_is_refused_with_both_owners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_private(tmp_path / "file", b"")
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)

    assert f"belongs to user id {owner}, but this process runs as {owner + 1}" in refusal(
        tmp_path / "file"
    )


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    """A pipe would be waited for until somebody writes to it."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "loop").symlink_to("loop")

    assert refusal(tmp_path / "pipe") == f"{tmp_path}/pipe is not a file"
    assert refusal(tmp_path) == f"{tmp_path} is not a file"
    assert "Too many levels" in refusal(tmp_path / "loop")
    assert "No such file" in refusal(tmp_path / "nothing")


def test_a_large_file_is_refused_with_both_sizes(tmp_path: Path) -> None:
    write_private(tmp_path / "file", b"x" * 101)

    assert refusal(tmp_path / "file") == (f"{tmp_path}/file has 101 bytes; at most 100 are read")


def test_a_write_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_private(tmp_path / "file", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match=r"cannot write .*/file: No space left on device"):
        write_private(tmp_path / "file", b"new")

    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere/file")

    write_private(tmp_path / "link", b"content")

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_bytes() == b"content"


def test_a_stamp_tells_every_change(tmp_path: Path) -> None:
    path = tmp_path / "file"
    stamps = [stamp_of(path)]
    write_private(path, b"one")
    stamps.append(stamp_of(path))
    write_private(path, b"two")
    stamps.append(stamp_of(path))
    os.utime(path, ns=(0, 0))
    stamps.append(stamp_of(path))
    path.write_bytes(b"three")
    stamps.append(stamp_of(path))

    assert stamps[0] is None
    assert len(set(stamps)) == len(stamps)
    assert read_private(path, 100)[1] == stamp_of(path)


@pytest.mark.slow
def test_changes_wait_for_each_other(tmp_path: Path) -> None:
    """Two that read, change and write at once would lose one of the changes."""
    path = tmp_path / "number"
    write_private(path, b"0")

    def count() -> None:
        for _ in range(20):
            with locked(path):
                write_private(path, b"%d" % (int(read_private(path, 10)[0]) + 1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert path.read_bytes() == b"80"
