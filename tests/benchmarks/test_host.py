"""The benchmark of the host keeps running: each kind of case, small, and the report of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
from rich.console import Console

from benchmarks.host import __main__ as command
from benchmarks.host import cases, launch, layers, memory, planner, tokens
from benchmarks.host.goals import GOALS, judged
from benchmarks.host.instant import InstantDevice
from benchmarks.host.machine import Row
from benchmarks.host.report import show
from pie.batch import Batch, BatchResult

UNITS = {"hop_us", "loop_us"}
DECODING = {"us_per_token", "tokens_per_cpu_second", "mean_batch", "gc_share", "core_share"}
STAGES = {"submit_us", "plan_us", "pack_us", "settle_us", "total_us"}


@pytest.fixture(autouse=True)
def _few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tokens.QUICK, 5, 12)


@pytest.mark.slow
def test_a_run_writes_its_figures_units_and_goals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In processes of their own, as from the command line."""
    output = tmp_path / "out.json"

    code = command.main(["--quick", "--only", "planner/10,tokens/wat/1", "--json", str(output)])

    report: dict[str, Any] = json.loads(output.read_text())
    assert code == 0
    assert list(report["results"]) == ["planner/10", "tokens/wat/1"]
    assert report["results"]["planner/10"].keys() >= STAGES | UNITS
    assert report["results"]["tokens/wat/1"].keys() >= DECODING | UNITS
    assert report["machine"].keys() >= UNITS | {"processor", "cores", "python"}
    assert len(report["goals"]) == len(GOALS)
    assert "µs/token" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["native", "native-stream", "wat"])
async def test_the_steady_state_is_measured_while_all_guests_run(kind: str) -> None:
    row = await tokens.measure(kind, 5, quick=True)

    assert row["window_tokens"] >= 5 * 5
    assert row["mean_batch"] <= 5
    assert row["us_per_token"] > 0


@pytest.mark.slow
async def test_guests_begin_with_as_much_context_as_asked_for() -> None:
    """More than a step takes: it is prefilled in chunks, and does not count as decoding."""
    row = await tokens.measure("wat", 2, quick=True, context=600)

    assert row["window_tokens"] <= 2 * row["tokens_per_guest"]


@pytest.mark.slow
async def test_a_wrong_text_fails_the_case(monkeypatch: pytest.MonkeyPatch) -> None:
    right = InstantDevice.run

    async def wrong(self: InstantDevice, batch: Batch) -> BatchResult:
        result = await right(self, batch)
        return attrs.evolve(result, tokens=result.tokens + 1)

    monkeypatch.setattr(InstantDevice, "run", wrong)
    with pytest.raises(AssertionError, match="5 wrong texts, the first 'bcd"):
        await tokens.measure("wat", 5, quick=True)


@pytest.mark.slow
async def test_launches_are_timed_to_the_first_call_and_to_the_end() -> None:
    row = await launch.bulk("wat", 5)
    loading = await launch.cold("wat")

    assert 0 < row["first_call_ms_median"] < row["all_ended_ms"]
    assert loading["compile_ms"] > 0 < loading["cached_ms"]


@pytest.mark.slow
async def test_an_idle_guest_has_memory_and_mappings() -> None:
    row = await memory.idle("wat", 20)

    assert row["kib_per_guest"] > 0
    assert row["mappings_per_guest"] > 1


def test_every_request_goes_through_all_stages() -> None:
    row = planner.measure(20, 3, quick=True, step_tokens=8)

    assert row["total_us"] == pytest.approx(sum(row[stage] for stage in STAGES - {"total_us"}))
    assert min(row[stage] for stage in STAGES) > 0


@pytest.mark.slow
async def test_a_profile_finds_wasm_and_the_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tokens.QUICK, 20, 200)
    profile = layers.Profile()

    await tokens.measure("wat", 20, quick=True, watch=tokens.Watch(profile.start, profile.stop))

    shares = profile.shares()
    assert sum(shares.values()) == pytest.approx(1)
    assert shares.keys() >= {layers.WASM, layers.CODECS, "host functions", "Trio"}
    assert shares.keys() >= {"scheduler: submit", "scheduler: settle", "scheduler: plan"}
    assert shares.get("elsewhere", 0) < 0.05


def test_goals_are_judged_on_what_was_measured() -> None:
    results = {"planner/10": {"total_us": 19.0}, "memory/wat/1000": {"kib_per_guest": 65.0}}

    verdicts = {goal["goal"]: goal["met"] for goal in judged(results)}

    assert verdicts.pop("planner and queue, 10 requests") is True
    assert verdicts.pop("memory of an idle WAT guest, of 1,000") is False
    assert set(verdicts.values()) == {None}


def test_what_could_not_be_measured_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    results = {"memory/wat/10000": {"skipped": "no room"}, "planner/10": {"failed": "leaked"}}

    show(results, Console(width=200))

    text = capsys.readouterr().out
    assert "not measured: no room" in text
    assert "FAILED: leaked" in text


@pytest.mark.slow
async def test_more_guests_than_the_machine_has_room_for_are_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def too_many(quick: bool) -> Row:
        return await memory.idle("wat", 10**9)

    monkeypatch.setitem(cases.CASES, "too many", cases.Case(too_many))

    row = await cases.run("too many", quick=True)

    assert "1000000001 guests are more than" in row["skipped"]
