"""Where things are kept: a cache, and what must outlive it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pie.cli.home import open_home
from pie.errors import UsageError


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home folder, and no other wishes."""
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    for variable in ("PIE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "user"


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_cache_and_data_have_folders_of_their_own(user: Path) -> None:
    home = open_home()

    assert home.path == user / ".cache" / "pie"
    assert home.data == user / ".local" / "share" / "pie"


def test_the_xdg_variables_move_them_unless_relative(
    user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert open_home().path == user / ".cache" / "pie"
    assert open_home().data == user / ".local" / "share" / "pie"

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert open_home().path == tmp_path / "cache" / "pie"
    assert open_home().data == tmp_path / "data" / "pie"


def test_pie_home_is_both(user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIE_HOME", "here")

    home = open_home()

    assert home.path == home.data == tmp_path / "here"
    assert home.path.is_dir()


def test_what_the_server_keeps_is_in_the_data_folder(user: Path) -> None:
    home = open_home()

    kept = (home.users, home.settings, home.token, home.programs, home.state)

    assert {path.parent for path in kept} == {home.data}
    assert home.users.name == "authorized_users.toml"
    assert home.settings.name == "config.toml"


def test_the_data_folder_is_made_when_asked_for_and_private(user: Path) -> None:
    """`pie run` keeps nothing there and needs no place to write it."""
    home = open_home()
    assert not home.data.exists()

    before = os.umask(0)
    try:
        home.make_data()
    finally:
        os.umask(before)

    assert mode(home.data) == 0o700


def test_a_data_folder_that_is_there_keeps_its_mode(user: Path) -> None:
    home = open_home()
    home.data.mkdir(parents=True)
    home.data.chmod(0o750)

    home.make_data()

    assert mode(home.data) == 0o750


def test_a_file_in_the_place_of_the_data_folder_is_named(user: Path) -> None:
    home = open_home()
    home.data.parent.mkdir(parents=True)
    home.data.write_text("")

    with pytest.raises(
        UsageError, match=f"cannot make {home.data}, which PIE_HOME decides: File exists"
    ):
        home.make_data()
