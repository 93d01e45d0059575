"""`pie run --trace` and `pie replay`: from a run of a component to a comparison of machines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trace.recording import Launch, a_guest, many, record

from .conftest import Ran
from .support import PROBE

Pie = Callable[..., Ran]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "t.json"
    record(path, many(2, 10))
    return path


@pytest.mark.slow
def test_a_run_is_traced_and_replayed(
    pie: Pie, shared_home: Path, tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "t.json"
    ran = pie("run", PROBE, "--model", tiny_model, "--trace", path, "--", "generate")
    events = json.loads(path.read_text())
    passes = [e for e in events if e["ph"] == "X" and e.get("cat") in ("pass", "follow")]
    replayed = pie("replay", path, "--machine", "H100", "--json")
    report = json.loads(replayed.out)

    assert ran.code == replayed.code == 0, ran.err + replayed.err
    assert len(passes) >= 1
    assert report["recorded"]["passes"] == len(passes)
    assert report["replayed"][0]["figures"]["passes"] == len(passes)
    assert report["replayed"][0]["setting"]["machine"] == "H100"


@pytest.mark.slow
@pytest.mark.usefixtures("home")
def test_a_trace_that_cannot_be_written_is_found_before_the_work(
    pie: Pie, tmp_path: Path, tiny_model: Path
) -> None:
    (tmp_path / "none.wasm").write_bytes(b"not looked at")
    path = tmp_path / "none" / "t.json"

    ran = pie("run", tmp_path / "none.wasm", "--model", tiny_model, "--trace", path)

    assert ran == Ran(2, "", f"pie: cannot write the trace {path}: No such file or directory\n")


def test_without_options_the_record_is_repeated(pie: Pie, trace: Path) -> None:
    ran = pie("replay", trace)
    rows = {line.split("│")[1].strip(): line for line in ran.out.splitlines() if "│" in line}

    assert ran.code == 0, ran.err
    assert "a step of simulated is taken as 10 ms + 10 µs a pass + 10 µs a further row" in ran.err
    assert rows["tokens/s"].split("│")[4].strip() == "1.000"
    assert rows["token p99, ms"].split("│")[4].strip() == "1.000"


def test_two_settings_are_compared_with_the_record_and_each_other(pie: Pie, trace: Path) -> None:
    ran = pie("replay", trace, "--machine", "H100", "--machine", "L4", "--seed", "3")
    head = next(line for line in ran.out.splitlines() if "recorded" in line)
    speed = next(line for line in ran.out.splitlines() if "tokens/s" in line).split("│")

    assert ran.code == 0, ran.err
    for column in ("H100, seed 3", "L4, seed 3", "1/recorded", "2/recorded", "2/1"):
        assert column in head
    assert float(speed[7]) == pytest.approx(float(speed[4]) / float(speed[3]), abs=0.001)
    assert float(speed[7]) < 0.5


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--machine", "B9000"), "unknown machine 'B9000': there are H100, H200"),
        (("--policy", "random"), "scheduling.dispatch is 'random'; it may be gather"),
        (("--seed", "1", "--seed", "2", "--seed", "3"), "--seed is there 3 times, not 2"),
        (("--step-tokens", "0"), "step_tokens is 0: it has to be at least 1"),
    ],
)
def test_settings_that_do_not_exist_are_one_line(
    pie: Pie, trace: Path, options: tuple[str, ...], reason: str
) -> None:
    ran = pie("replay", trace, *options)

    assert ran.code == 2
    assert ran.err.count("\n") == 1
    assert reason in ran.err


def test_what_is_no_trace_is_one_line(pie: Pie, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("{}")

    assert pie("replay", tmp_path / "t.json") == Ran(
        2, "", f"pie: {tmp_path / 't.json'} is no trace of Pie: line 1 is not a bracket\n"
    )


def test_a_killed_run_is_replayed_as_far_as_it_got(pie: Pie, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    record(path, [Launch(a_guest(20, 30))])
    path.write_text(path.read_text()[:-1500])

    ran = pie("replay", path, "--machine", "H100")

    assert ran.code == 0, ran.err
    assert "its run was killed" in ran.err
