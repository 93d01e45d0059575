"""Names, folders and files; and where Pie keeps things."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pie.cli import targets
from pie.cli.home import Home
from pie.errors import UsageError


@pytest.fixture
def library(tmp_path: Path) -> Path:
    for name in ("beam", "tree"):
        (tmp_path / "library" / name).mkdir(parents=True)
        (tmp_path / "library" / name / "app.py").write_text("")
    (tmp_path / "library" / "notes").mkdir()
    return tmp_path / "library"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_a_word_is_a_name_of_the_library_first(library: Path, elsewhere: Path) -> None:
    (elsewhere / "beam").mkdir()
    (elsewhere / "beam" / "app.py").write_text("")

    assert targets.find("beam", library) == library / "beam"
    assert targets.find("./beam", library) == Path("beam")


def test_a_word_that_is_no_name_may_be_a_path(library: Path, elsewhere: Path) -> None:
    (elsewhere / "mine").mkdir()
    (elsewhere / "mine" / "app.py").write_text("")
    (elsewhere / "made.wasm").write_text("")

    assert targets.find("mine", library) == Path("mine")
    assert targets.find("made.wasm", library) == Path("made.wasm")


def test_an_unknown_name_gets_the_known_ones(library: Path) -> None:
    with pytest.raises(UsageError, match="no inferlet 'bean'; the library has beam, tree"):
        targets.find("bean", library)


def test_without_the_library_that_is_the_reason(tmp_path: Path) -> None:
    """A wheel has the package only."""
    with pytest.raises(UsageError, match="the library is not part of this installation"):
        targets.find("beam", tmp_path / "missing")


def test_the_cache_forgets_the_oldest_first(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.built.mkdir(parents=True)
    for age, name in enumerate(("new", "middle", "old")):
        (home.built / name).write_bytes(bytes(100))
        os.utime(home.built / name, (1e9 - age, 1e9 - age))

    home.prune(300)
    assert len(list(home.built.iterdir())) == 3

    home.prune(250)
    assert {path.name for path in home.built.iterdir()} == {"new", "middle"}
