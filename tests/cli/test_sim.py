"""`pie sim`: sweeps, logs, and how to replay a failing seed."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from pie.actors.room import Room

from .conftest import Ran

Pie = Callable[..., Ran]

TINY = """
guests = 2
[programs]
decode = 1
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def test_a_sweep_says_what_it_has_seen(pie: Pie, scenario: Path) -> None:
    ran = pie("sim", "--seeds", "0..4", "--scenario", scenario)

    assert ran.code == 0, ran.err
    assert ran.out.startswith("5 seeds of tiny in ")
    assert "0 failed: 10 guests" in ran.out
    assert "      10 event COMPLETED\n" in ran.out


def test_the_log_has_every_event_of_every_seed(pie: Pie, scenario: Path, tmp_path: Path) -> None:
    log, texts = tmp_path / "log", []
    for _ in range(2):
        assert pie("sim", "--seeds", "3", "--scenario", scenario, "--log", log).code == 0
        texts.append(log.read_text())

    assert texts[0] == texts[1]
    assert texts[0].startswith("scenario tiny, seed 3\n")
    assert "launch 1 decode" in texts[0]
    assert "guest 1 ended: COMPLETED" in texts[0]


def test_a_seed_means_the_same_wherever_the_file_is(
    pie: Pie, scenario: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / scenario.name
    copy.write_text(TINY)
    logs = tmp_path / "here", tmp_path / "there"
    for path, log in zip((scenario, copy), logs, strict=True):
        assert pie("sim", "--seeds", "0..2", "--scenario", path, "--log", log).code == 0

    assert logs[0].read_text() == logs[1].read_text()


def _leak(self: Room, resource: object) -> None:
    """Takes nothing back."""


def test_a_failing_seed_says_how_to_replay_it(
    pie: Pie, scenario: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the last events; the command it names fails in the same way."""
    monkeypatch.setattr(Room, "reclaim", _leak)
    ran = pie("sim", "--seeds", "0..9", "--scenario", scenario)
    command = shlex.split(ran.err.splitlines()[-1].split("replay it with: ")[1])

    assert ran.code == 1
    assert "numbers of kind KV_PAGE are lost" in ran.err
    assert " launch 0 decode " in ran.err
    again = pie(*command[1:])
    assert again.code == 1
    assert again.err.splitlines()[-2:] == ran.err.splitlines()[-2:]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--seeds", "1-5"], "--seeds '1-5' is neither a number nor A..B"),
        (["--seeds", "5..1"], "--seeds 5..1: 1 is before 5"),
        (["--scenario", "none"], "no scenario 'none': give a .toml file, or one of"),
        (["--scenario", "none.toml"], "cannot read scenario none.toml: No such file"),
        (["--log", "/no/folder/log"], "cannot write the log /no/folder/log: No such file"),
    ],
)
def test_wrong_options_are_one_line(pie: Pie, options: list[str], text: str) -> None:
    ran = pie("sim", *options)

    assert ran.code == 2
    assert ran.err.startswith(f"pie: {text}")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("toml", "text"),
    [
        ("guests = 3", "no [programs]: a table of program = weight"),
        ("[programs]", "programs is not a table of program = weight"),
        ("[programs]\nfly = 1", "no program 'fly', there are"),
        ("[programs]\ndecode = 0", "weight 0 of decode is not above 0"),
        ("gusts = 3\n[programs]\ndecode = 1", "'gusts' is not one of"),
        ("pages = [9, 4]\n[programs]\ndecode = 1", "pages = [9, 4] is neither a number nor"),
        ("pages = 3\n[programs]\ndecode = 1", "pages is below 16"),
        ("pages = 1e9\n[programs]\ndecode = 1", "pages is above"),
        ("killed = 2\n[programs]\ndecode = 1", "killed = 2 is not a probability from 0 to 1"),
        ("pages = ", "Invalid value"),
    ],
)
def test_a_wrong_scenario_is_one_line(pie: Pie, tmp_path: Path, toml: str, text: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(toml)
    ran = pie("sim", "--scenario", path)

    assert ran.code == 2
    assert f"scenario {path}: {text}" in ran.err
    assert ran.err.count("\n") == 1
