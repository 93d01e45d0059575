"""A replay under the conditions of the record repeats it; under others it differs as it should."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from pie.actors.executor import Device
from pie.batch import Batch, BatchResult
from pie.config import EngineConfig, Scheduling
from pie.errors import UsageError
from pie.testing import H100, LLAMA_3_8B, HashModel, LinearTiming, SimulatedGpu
from pie.testing.replay import BlankRunner, Setting, fitted, replay, replay_under
from pie.trace.figures import Figures, figures, recorded
from pie.trace.reading import Record

from .recording import Launch, a_guest, forking, linear, many, record, services

NANOSECONDS = 5e-9
"""Spans in a file are rounded to nanoseconds and two of these shorter than they were."""


def _figures(record: Record) -> Figures:
    found, failed = recorded(record)
    return figures(found, record.batches, failed)


def _again(record: Record, make: Callable[[BlankRunner], Device], **more: Any) -> Any:
    return replay(record, lambda _, info: make(BlankRunner(info)), **more)


def _assert_repeated(record: Record, run: Any) -> None:
    assert run.given_up == {}
    then, now = services(record), sorted(run.services, key=lambda service: service.op)
    assert [service.op for service in now] == [service.op for service in then]
    for before, after in zip(then, now, strict=True):
        assert after.submitted == pytest.approx(before.submitted, abs=NANOSECONDS)
        assert after.answered == pytest.approx(before.answered, abs=NANOSECONDS)
    assert [(b.rows, b.passes, b.kv_slots) for b in run.batches] == [
        (b.rows, b.passes, b.kv_slots) for b in record.batches
    ]


@given(
    seed=st.integers(0, 2**32), guests=st.integers(1, 14), pages=st.sampled_from([100, 160, 4096])
)
@settings(max_examples=20, deadline=None)
def test_the_same_machine_policy_and_seed_repeat_every_pass(
    seed: int, guests: int, pages: int
) -> None:
    """Also where pages do not suffice for all, and move to host memory and back."""
    config = EngineConfig(scheduling=Scheduling(host_pages=2 * pages))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.json"
        made = record(
            path, many(seed, guests), device=lambda: linear(pages), config=config, seed=seed
        )

    run = _again(made, lambda runner: SimulatedGpu(runner, LinearTiming()), seed=seed)

    _assert_repeated(made, run)


def test_jitter_of_the_same_seed_repeats(tmp_path: Path) -> None:
    made = record(
        tmp_path / "t.json",
        many(5, 12),
        device=lambda: SimulatedGpu(HashModel(), LinearTiming(), seed=9, jitter=0.3),
    )

    same = _again(made, lambda r: SimulatedGpu(r, LinearTiming(), seed=9, jitter=0.3))
    other = _again(made, lambda r: SimulatedGpu(r, LinearTiming(), seed=8, jitter=0.3))

    _assert_repeated(made, same)
    assert other.figures.seconds != pytest.approx(same.figures.seconds)
    assert other.figures.seconds == pytest.approx(same.figures.seconds, rel=0.2)


def test_a_replay_is_the_same_every_time(tmp_path: Path) -> None:
    made = record(tmp_path / "t.json", many(6, 12))
    setting = Setting(machine="H100", seed=4, jitter=0.1)

    first, second = replay_under(made, setting), replay_under(made, setting)

    assert first.figures == second.figures
    assert first.services == second.services


def test_every_policy_repeats_its_own_record_and_batches_unlike_the_others(tmp_path: Path) -> None:
    """An eager rule starts a batch at the first pass; gathering waits for those on their way."""
    runs = {}
    for policy in ("gather", "eager", "fixed-wait"):
        config = EngineConfig(scheduling=Scheduling(dispatch=policy))
        made = record(tmp_path / f"{policy}.json", many(7, 16), config=config)
        _assert_repeated(made, _again(made, lambda r: SimulatedGpu(r, LinearTiming())))
        runs[policy] = made

    eager = replay_under(runs["gather"], Setting(policy="eager"))
    recorded_eager = _figures(runs["eager"])
    assert eager.figures.batches > _figures(runs["gather"]).batches
    assert eager.figures.tokens_per_second < _figures(runs["gather"]).tokens_per_second
    assert eager.figures.tokens_per_second == pytest.approx(
        recorded_eager.tokens_per_second, rel=0.05
    )


def test_machines_differ_as_their_bandwidth_does(tmp_path: Path) -> None:
    made = record(
        tmp_path / "t.json",
        [Launch(a_guest(100, 50)) for _ in range(8)],
        device=lambda: SimulatedGpu.of(H100, LLAMA_3_8B),
    )

    same = replay_under(made, Setting(machine="h100"))
    faster = replay_under(made, Setting(machine="H200")).figures
    slower = replay_under(made, Setting(machine="L4")).figures
    small = replay_under(made, Setting(machine="L4", shape="smollm2-135m")).figures

    _assert_repeated(made, same)
    assert faster.tokens_per_second > 1.2 * same.figures.tokens_per_second
    assert slower.tokens_per_second < 0.2 * same.figures.tokens_per_second
    assert slower.token_p99_ms > 5 * same.figures.token_p99_ms
    assert small.tokens_per_second > 5 * slower.tokens_per_second


def test_pauses_stay_as_long_on_a_faster_machine(tmp_path: Path) -> None:
    made = record(tmp_path / "t.json", [Launch(a_guest(5, 20, pause=3.0))])
    assert _figures(made).seconds == pytest.approx(3.2, rel=0.01)

    run = _again(made, lambda r: SimulatedGpu(r, LinearTiming(step_seconds=0.0001)))

    assert run.figures.seconds == pytest.approx(3.0, rel=0.01)
    assert run.figures.seconds > 3.0


def test_fewer_pages_slow_it_down_and_more_speed_it_up(tmp_path: Path) -> None:
    made = record(
        tmp_path / "t.json",
        [Launch(a_guest(200, 30)) for _ in range(8)],
        device=lambda: linear(pages=60),
        config=EngineConfig(scheduling=Scheduling(host_pages=400)),
    )

    fewer = replay_under(made, Setting(pages=30)).figures
    more = replay_under(made, Setting(pages=4096)).figures

    assert fewer.tokens_per_second < _figures(made).tokens_per_second < more.tokens_per_second


def test_an_instance_that_can_never_have_its_pages_is_named(tmp_path: Path) -> None:
    made = record(tmp_path / "t.json", [Launch(a_guest(500, 5)), Launch(a_guest(20, 5), 0.01)])

    run = replay_under(made, Setting(pages=10))

    assert list(run.given_up) == [0]
    assert "the pool has 10" in run.given_up[0]
    assert {service.instance for service in run.services} == {1}
    with pytest.raises(UsageError, match="no pass of the trace came through"):
        replay_under(made, Setting(pages=1))


def test_forks_keep_sharing_their_prompt(tmp_path: Path) -> None:
    """Copies on write are made where the record made them, so the same number of pages suffices."""
    made = record(tmp_path / "t.json", [Launch(forking(320, 10, 8))], device=lambda: linear(36))

    run = replay_under(made, Setting())

    assert run.given_up == {}
    assert run.figures.passes == _figures(made).passes


def test_steps_are_fitted_from_the_record(tmp_path: Path) -> None:
    made = record(tmp_path / "t.json", many(8, 10))

    found = fitted(made.batches)

    assert found.step == pytest.approx(LinearTiming().step_seconds, rel=1e-4)
    assert found.first_row == pytest.approx(LinearTiming().row_seconds, rel=1e-3)
    assert found.row == pytest.approx(LinearTiming().row_seconds, rel=1e-3)
    assert found.error < 1e-6
    assert replay_under(made, Setting()).figures.seconds == pytest.approx(
        _figures(made).seconds, rel=1e-6
    )


def test_a_fit_has_no_negative_part(tmp_path: Path) -> None:
    """Steps that get shorter with more rows: only the constant is left."""
    made = record(tmp_path / "t.json", many(8, 10))
    shorter = [attrs.evolve(batch, seconds=0.1 - 1e-4 * batch.rows) for batch in made.batches]

    found = fitted(shorter)

    assert found.first_row == found.row == 0
    assert found.slot >= 0
    assert found.error > 0


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        (
            Setting(machine="B9000"),
            "unknown machine 'B9000': there are H100, H200, A100, L4, laptop",
        ),
        (Setting(machine="L4", shape="gpt"), "unknown model shape 'gpt'"),
        (Setting(policy="random"), "scheduling.dispatch is 'random'; it may be gather"),
        (Setting(step_tokens=0), "step_tokens is 0"),
        (Setting(pages=0), "pages is 0"),
        (Setting(jitter=-1.0), "jitter"),
    ],
)
def test_settings_that_do_not_exist_are_named(
    tmp_path: Path, setting: Setting, reason: str
) -> None:
    made = record(tmp_path / "t.json", [Launch(a_guest(5, 2))])

    with pytest.raises(UsageError, match=reason):
        replay_under(made, setting)


def test_a_machine_that_never_answers_is_no_endless_replay(tmp_path: Path) -> None:
    class Silent(SimulatedGpu):
        async def run(self, batch: Batch) -> BatchResult:
            await trio.sleep_forever()
            raise AssertionError("never woken")

    made = record(tmp_path / "t.json", [Launch(a_guest(5, 2))])

    with pytest.raises(UsageError, match="the replay is stuck: nobody answers request 1"):
        _again(made, lambda runner: Silent(runner))


def test_a_record_of_settings_that_do_not_exist_here_is_refused(tmp_path: Path) -> None:
    made = record(tmp_path / "t.json", [Launch(a_guest(5, 2))])
    made.models[0].scheduling["magic"] = 3

    with pytest.raises(UsageError, match="no scheduling setting 'magic'"):
        replay_under(made, Setting())
