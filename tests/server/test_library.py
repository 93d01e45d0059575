"""The library keeps what it has confirmed, for whom it is, and never half a program."""

from __future__ import annotations

import itertools
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pie.errors import UsageError
from pie.server.blobs import hash_of
from pie.server.library import ProgramLibrary
from pie.server.library_room import BLOCK
from pie.server.library_tables import EVERYBODY, Uploads
from pie.server.program_names import parse_name

LOTS = 1 << 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "programs"


@pytest.fixture
def library(folder: Path) -> Iterator[ProgramLibrary]:
    ticks = itertools.count()
    opened = ProgramLibrary.open(folder, lambda: float(next(ticks)))
    yield opened
    opened.close()


def upload(
    library: ProgramLibrary, user: str, wasm: bytes, name: str | None = None, limit: int = LOTS
) -> str:
    key = hash_of(wasm)
    called = None if name is None else parse_name(name)
    library.add_upload(user, wasm, key, called, limit=limit)
    return key


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "blobs").iterdir())


# Who finds what


def test_an_upload_is_found_by_its_user_only(library: ProgramLibrary) -> None:
    """Whoever knows a hash does not learn from us who else has it."""
    key = upload(library, "ann", b"one")

    assert library.has("ann", key)
    assert not library.has("bob", key)
    assert library.locate("ann", key) is None
    with pytest.raises(UsageError, match=f"no program {key}: upload it first"):
        library.locate("bob", key)
    assert library.read(key) == b"one"


def test_an_installed_program_is_found_by_everybody(library: ProgramLibrary) -> None:
    entry = library.install(b"one", parse_name("tool@0.1.0"), replace=False)

    assert str(entry) == "std/tool@0.1.0"
    assert library.has("ann", entry.hash)
    assert library.resolve("bob", parse_name("tool")) == entry


def test_a_name_of_an_upload_is_its_users_alone(library: ProgramLibrary) -> None:
    """Nobody can put a program into the place of one that others launch."""
    installed = library.install(b"good", parse_name("tool@0.1.0"), replace=False)
    mine = upload(library, "ann", b"mine", "std/tool@0.1.0")
    upload(library, "ann", b"newer", "std/tool@9.0")

    assert library.resolve("bob", parse_name("tool")).hash == installed.hash
    assert library.resolve("bob", parse_name("tool@0.1.0")).hash == installed.hash
    assert library.resolve("ann", parse_name("tool@0.1.0")).hash == mine
    assert str(library.resolve("ann", parse_name("tool"))) == "std/tool@9.0"
    assert str(library.locate("ann", mine)) == "std/tool@0.1.0"
    assert library.has_named("ann", parse_name("tool@9.0"))
    assert not library.has_named("bob", parse_name("tool@9.0"))


def test_latest_is_the_highest_version(library: ProgramLibrary) -> None:
    for version in ("0.9.0", "0.10.0-rc.1", "0.2.0"):
        library.install(version.encode(), parse_name(f"tool@{version}"), replace=False)

    assert str(library.resolve("ann", parse_name("tool"))) == "std/tool@0.10.0-rc.1"
    library.install(b"release", parse_name("tool@0.10.0"), replace=False)
    assert str(library.resolve("ann", parse_name("tool@latest"))) == "std/tool@0.10.0"


def test_a_pinned_name_must_have_that_content(library: ProgramLibrary) -> None:
    key = library.install(b"one", parse_name("tool@1"), replace=False).hash
    other = hash_of(b"two")

    assert library.has_named("ann", parse_name(f"tool@1#{key}"))
    assert library.resolve("ann", parse_name(f"tool#{key}")).hash == key
    assert not library.has_named("ann", parse_name(f"tool@1#{other}"))
    with pytest.raises(UsageError, match=f"std/tool@1 has the hash {key}, not {other}"):
        library.resolve("ann", parse_name(f"tool#{other}"))


def test_an_unknown_name_is_refused_with_what_there_is(library: ProgramLibrary) -> None:
    with pytest.raises(UsageError, match="none has a name here; `pie install` adds one"):
        library.resolve("ann", parse_name("tool"))
    library.install(b"one", parse_name("tool@1"), replace=False)
    upload(library, "ann", b"two", "mine@2")
    upload(library, "bob", b"two", "secret@2")

    with pytest.raises(UsageError) as caught:
        library.resolve("ann", parse_name("toll"))
    assert "no inferlet std/toll; there is std/mine@2, std/tool@1; `pie install`" in str(
        caught.value
    )
    with pytest.raises(UsageError, match=r"no version 2 of inferlet std/tool; there is 1$"):
        library.resolve("ann", parse_name("tool@2"))
    for number in range(20):
        library.install(b"one", parse_name(f"many{number}@1"), replace=False)
    with pytest.raises(UsageError, match="and 10 more; `pie install`"):
        library.resolve("ann", parse_name("toll"))


def test_a_name_can_be_uploaded_again_with_other_content(library: ProgramLibrary) -> None:
    first = upload(library, "ann", b"one", "tool@1")
    second = upload(library, "ann", b"two", "tool@1")

    assert library.resolve("ann", parse_name("tool@1")).hash == second
    assert library.has("ann", first)


# Installing


def test_a_name_is_not_installed_over_unless_asked(library: ProgramLibrary, folder: Path) -> None:
    first = library.install(b"one", parse_name("tool@1"), replace=False)
    assert library.install(b"one", parse_name("tool@1"), replace=False) == first

    with pytest.raises(
        UsageError, match=f"std/tool@1 is installed with other content, {first.hash}"
    ):
        library.install(b"two", parse_name("tool@1"), replace=False)
    assert files(folder) == [f"{first.hash}.wasm"]

    second = library.install(b"two", parse_name("tool@1"), replace=True)
    assert files(folder) == [f"{second.hash}.wasm"]


def test_what_is_uninstalled_stays_with_those_who_uploaded_it(
    library: ProgramLibrary, folder: Path
) -> None:
    key = upload(library, "ann", b"one")
    library.install(b"one", parse_name("tool@1"), replace=False)
    library.install(b"one", parse_name("tool@2"), replace=False)

    assert str(library.uninstall(parse_name("tool@1"))) == "std/tool@1"
    with pytest.raises(UsageError, match="std/tool@1 is not installed; there is std/tool@2"):
        library.uninstall(parse_name("tool@1"))
    library.uninstall(parse_name("tool@2"))
    with pytest.raises(UsageError, match="std/tool@2 is not installed; nor any other version"):
        library.uninstall(parse_name("tool@2"))

    assert library.has("ann", key)
    assert not library.has("bob", key)
    assert library.read(key) == b"one"


def test_a_users_name_can_be_taken_away(library: ProgramLibrary) -> None:
    key = upload(library, "ann", b"one", "tool@1")

    assert library.uninstall(parse_name("tool@1"), "ann").owner == "ann"
    assert library.has("ann", key)
    with pytest.raises(UsageError, match="std/tool@1 is not an upload of user 'ann'"):
        library.uninstall(parse_name("tool@1"), "ann")


def test_all_names_and_uploads_are_listed(library: ProgramLibrary) -> None:
    upload(library, "bob", b"three", "x@1")
    upload(library, "ann", b"one")
    upload(library, "ann", b"three", "x@10")
    upload(library, "ann", b"three", "x@9")
    library.install(b"four", parse_name("a@1"), replace=False)

    listed = [(entry.owner, str(entry), entry.size) for entry in library.entries()]

    assert listed == [
        (EVERYBODY, "std/a@1", 4),
        ("ann", "std/x@9", 5),
        ("ann", "std/x@10", 5),
        ("bob", "std/x@1", 5),
    ]
    assert library.uploads() == [Uploads("ann", 2, 8), Uploads("bob", 1, 5)]


# Room


def test_what_two_users_upload_is_kept_once(library: ProgramLibrary, folder: Path) -> None:
    key = upload(library, "ann", b"one")
    assert upload(library, "bob", b"one") == key

    assert files(folder) == [f"{key}.wasm"]


def test_the_least_recently_used_upload_makes_room(library: ProgramLibrary, folder: Path) -> None:
    """Somebody who uploads a new build every minute for a week goes on working."""
    limit = 3 * BLOCK
    first, second, third = (upload(library, "ann", b"%d" % n, limit=limit) for n in range(3))
    library.locate("ann", first)

    fourth = upload(library, "ann", b"4", limit=limit)

    assert [library.has("ann", key) for key in (first, second, third, fourth)] == [
        True,
        False,
        True,
        True,
    ]
    assert len(files(folder)) == 3
    for build in range(100):
        assert library.has("ann", upload(library, "ann", b"build %d" % build, limit=limit))
    assert len(files(folder)) == 3


def test_newer_versions_make_room_for_themselves_last_of_all(library: ProgramLibrary) -> None:
    limit = 6 * BLOCK  # a name counts as a block too
    for version in ("1", "2"):
        upload(library, "ann", version.encode(), f"tool@{version}", limit)
    unnamed = upload(library, "ann", b"x", limit=limit)

    upload(library, "ann", b"3", "tool@3", limit)
    assert not library.has("ann", unnamed)
    assert library.has_named("ann", parse_name("tool@1"))

    for number in range(4, 100):
        upload(library, "ann", b"%d" % number, f"tool@{number}", limit)
    assert [str(entry) for entry in library.entries()] == [f"std/tool@{n}" for n in (97, 98, 99)]


def test_an_upload_beyond_the_quota_is_refused_with_both_numbers(
    library: ProgramLibrary, folder: Path
) -> None:
    limit = 4 * BLOCK
    kept = upload(library, "ann", b"1", "one@1", limit)
    older = upload(library, "ann", b"2", limit=limit)

    with pytest.raises(UsageError, match=rf"{5 * BLOCK} bytes, at most {limit} are kept"):
        upload(library, "ann", bytes(2 * BLOCK + 1), limit=limit)

    assert library.has("ann", kept)
    assert library.has("ann", older), "what is refused must cost nothing"
    assert files(folder) == sorted([f"{kept}.wasm", f"{older}.wasm"])
    assert upload(library, "bob", bytes(2 * BLOCK + 1), limit=limit)


def test_room_is_made_only_of_what_nobody_else_has(library: ProgramLibrary, folder: Path) -> None:
    key = upload(library, "ann", b"one")
    upload(library, "bob", b"one")

    upload(library, "ann", b"two", limit=BLOCK)

    assert not library.has("ann", key)
    assert library.has("bob", key)
    assert library.read(key) == b"one"


def test_many_names_for_one_content_count_too(library: ProgramLibrary) -> None:
    limit = 10 * BLOCK
    for number in range(9):
        upload(library, "ann", b"one", f"tool{number}@1", limit)

    with pytest.raises(UsageError, match="quota stored_bytes"):
        upload(library, "ann", b"one", "tool9@1", limit)


def test_what_was_used_is_remembered_by_the_next_process(folder: Path) -> None:
    ticks = itertools.count()
    library = ProgramLibrary.open(folder, lambda: float(next(ticks)))
    first, second = upload(library, "ann", b"1"), upload(library, "ann", b"2")
    library.locate("ann", first)
    library.close()

    library = ProgramLibrary.open(folder, lambda: float(next(ticks)))
    upload(library, "ann", b"3", limit=2 * BLOCK)

    assert (library.has("ann", first), library.has("ann", second)) == (True, False)
    library.close()


# Damage


def test_a_wrong_hash_is_refused(library: ProgramLibrary, folder: Path) -> None:
    with pytest.raises(UsageError, match=f"Hash mismatch: expected {hash_of(b'x')}, got"):
        library.add_upload("ann", b"one", hash_of(b"x"), None, limit=LOTS)

    assert files(folder) == []


@pytest.mark.parametrize("content", [b"onE", b"on", b"", None])
def test_damaged_content_is_never_given_out(
    content: bytes | None,
    library: ProgramLibrary,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is forgotten, so that a client that asks first uploads it again."""
    key = upload(library, "ann", b"one", "tool@1")
    path = folder / "blobs" / f"{key}.wasm"
    path.unlink()
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(UsageError, match=f"program {key} is gone, or its file was damaged"):
        library.read(key)

    assert "called std/tool@1: its file in" in caplog.text
    assert not library.has("ann", key)
    assert not library.has_named("ann", parse_name("tool"))
    assert files(folder) == []
    upload(library, "ann", b"one", "tool@1")
    assert library.read(key) == b"one"


def test_uploading_again_repairs_a_damaged_file(library: ProgramLibrary, folder: Path) -> None:
    key = upload(library, "ann", b"one")
    (folder / "blobs" / f"{key}.wasm").write_bytes(b"bad")

    upload(library, "ann", b"one")

    assert library.read(key) == b"one"


def test_a_file_that_is_gone_is_not_there(library: ProgramLibrary, folder: Path) -> None:
    """Else a client would never upload it again."""
    key = upload(library, "ann", b"one", "tool@1")
    (folder / "blobs" / f"{key}.wasm").unlink()

    assert not library.has("ann", key)
    assert not library.has_named("ann", parse_name("tool@1"))


def test_leftovers_are_swept(library: ProgramLibrary, folder: Path) -> None:
    key = upload(library, "ann", b"one")
    for name in (f"{hash_of(b'x')}.wasm", f".{key}.wasm-abcdef", f"{key}.part"):
        (folder / "blobs" / name).write_bytes(b"x")

    ProgramLibrary.open(folder).close()

    assert files(folder) == [f"{key}.wasm"]


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match=f"cannot keep programs in {tmp_path}/file/x/blobs: Not"):
        ProgramLibrary.open(tmp_path / "file" / "x")

    (tmp_path / "programs.sqlite").write_bytes(b"something else" * 100)
    with pytest.raises(UsageError, match=r"programs\.sqlite: file is not a database"):
        ProgramLibrary.open(tmp_path)


def test_tables_of_another_version_are_left_alone(folder: Path) -> None:
    ProgramLibrary.open(folder).close()
    with sqlite3.connect(folder / "programs.sqlite") as db:
        db.execute("PRAGMA user_version = 7")
    db.close()

    with pytest.raises(UsageError, match="has layout 7, and this version of Pie knows 1"):
        ProgramLibrary.open(folder)


def test_what_cannot_be_written_changes_nothing(
    library: ProgramLibrary, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, say."""
    old = library.install(b"one", parse_name("tool@1"), replace=False)

    def full(path: Path, content: bytes) -> None:
        raise UsageError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr("pie.server.blobs.write_private", full)
    with pytest.raises(UsageError, match="No space left"):
        library.install(b"two", parse_name("tool@1"), replace=True)
    with pytest.raises(UsageError, match="No space left"):
        upload(library, "ann", b"three", "x@1")

    assert library.entries() == [old]
    assert library.uploads() == []
    assert library.read(old.hash) == b"one"


# Several at once


def test_threads_and_libraries_share_a_folder(library: ProgramLibrary, folder: Path) -> None:
    other = ProgramLibrary.open(folder)

    def work(number: int) -> None:
        shelf = (library, other)[number % 2]
        upload(shelf, "ann", b"%d" % number, f"tool{number % 5}@{number}")
        key = upload(shelf, f"user {number}", b"%d" % (number % 7), limit=2 * BLOCK)
        shelf.install(b"%d" % number, parse_name("all@1"), replace=True)
        assert shelf.read(key) == b"%d" % (number % 7)

    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(work, range(40)))) == 40
    other.close()

    whole = _whole(folder)
    assert len(whole.entries()) == 41
    whole.close()


def _whole(folder: Path) -> ProgramLibrary:
    """Open it, and look whether names, contents and files agree."""
    library = ProgramLibrary.open(folder)
    with sqlite3.connect(folder / "programs.sqlite") as db:
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        kept = {key for (key,) in db.execute("SELECT hash FROM programs")}
        used = {
            key for (key,) in db.execute("SELECT hash FROM names UNION SELECT hash FROM holders")
        }
    db.close()
    assert kept == used
    assert files(folder) == sorted(f"{key}.wasm" for key in kept)
    for key in kept:
        assert hash_of(library.read(key)) == key
    return library


def _changing(folder: Path, seed: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.server.library_loop", folder, str(seed)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )


def _lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline() for _ in range(count)]


def _kill(process: subprocess.Popen[str]) -> list[str]:
    """What it had told and nobody had read."""
    process.kill()
    return process.communicate()[0].splitlines(keepends=True)


@pytest.mark.slow
def test_a_process_killed_at_any_moment_leaves_nothing_half(folder: Path) -> None:
    chance = random.Random(1)
    for seed in range(12):
        process = _changing(folder, seed)
        told = _lines(process, chance.randrange(1, 9))
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(chance.random() * 0.02)
        told += _kill(process)

        library = _whole(folder)
        words = [line.split() for line in told if line.endswith("\n")]
        last = next(key for did, key in reversed(words) if did == "uploaded")
        assert library.has("user", last), "it was confirmed"
        library.close()


@pytest.mark.slow
def test_processes_share_a_folder(folder: Path) -> None:
    processes = [_changing(folder, seed) for seed in range(4)]
    for process in processes:
        assert all(_lines(process, 20))
    for process in processes:
        _kill(process)

    _whole(folder).close()
