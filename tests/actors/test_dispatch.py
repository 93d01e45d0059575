"""The rules for starting batches, alone: no clock, no scheduler."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie.actors.dispatch import (
    POLICIES,
    Adaptive,
    Eager,
    FixedSize,
    FixedWait,
    Gather,
    Moment,
    Pace,
    best_throughput,
    dispatch_named,
)
from pie.actors.prediction import StepTime
from pie.errors import UsageError


def moment(
    ready: int = 1,
    moving: int = 0,
    *,
    room: int = 512,
    waited: float = 0.0,
    settle: float = 0.0,
    overhead: float = 0.006,
) -> Moment:
    return Moment(
        ready=ready,
        room=room,
        moving=moving,
        waited=waited,
        settle_seconds=settle,
        overhead=overhead,
    )


def test_nobody_moving_is_waited_for_no_time() -> None:
    assert Gather().pause(moment(ready=5, moving=0)) == 0


def test_guests_that_settle_at_once_are_waited_for() -> None:
    """For at most the overhead of the step that they save, times their share of it."""
    assert Gather().pause(moment(ready=1, moving=1)) == pytest.approx(0.003)
    assert Gather().pause(moment(ready=1, moving=3)) == pytest.approx(0.0045)
    assert Gather().pause(moment(ready=1, moving=3, waited=0.001)) == pytest.approx(0.0035)


def test_a_full_step_waits_for_nobody() -> None:
    assert Gather().pause(moment(ready=512, moving=100, room=0)) == 0


def test_a_wait_that_would_cost_more_than_it_gains_is_not_begun() -> None:
    """256 guests at 50 µs take 12.8 ms, twice the overhead; 64 of them take half of it."""
    gather = Gather()

    assert gather.pause(moment(ready=1, moving=255, settle=50e-6)) == 0
    assert gather.pause(moment(ready=1, moving=63, settle=50e-6)) > 0


@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 500), st.floats(0, 1e-3))
def test_whether_to_wait_depends_on_how_many_take_part_not_on_who_is_ready(
    ready: int, moving: int, shift: int, settle: float
) -> None:
    """So two groups that take turns stay two, and one that is waited for stays one."""
    gather = Gather()
    shift = min(shift, moving - 1)
    before = gather.pause(moment(ready, moving, room=1000, settle=settle)) > 0
    after = gather.pause(moment(ready + shift, moving - shift, room=1000, settle=settle)) > 0

    close = abs((ready + moving) * settle - 0.006) < 1e-9
    assert before == after or close


def test_the_other_rules() -> None:
    assert Eager().pause(moment(ready=1, moving=99)) == 0
    assert FixedSize(8, 0.1).pause(moment(ready=7)) == pytest.approx(0.1)
    assert FixedSize(8, 0.1).pause(moment(ready=8)) == 0
    assert FixedSize(8, 0.1).pause(moment(ready=7, waited=0.1)) == 0
    assert FixedWait(0.005).pause(moment(ready=500, waited=0.004)) == pytest.approx(0.001)


def test_the_adaptive_rule_starts_what_is_there_when_the_accelerator_is_free() -> None:
    rule = Adaptive()
    rule.arrived(0.0)

    assert rule.pause(moment()) == 0
    assert rule.limit() == 1


def test_the_adaptive_rule_closes_batches_behind_a_running_one() -> None:
    """At the 128th pass; at most two closed ones wait, and the rest goes with the next."""
    rule = Adaptive(least=1000)
    rule.arrived(0.0)
    rule.limit()
    for _ in range(300):
        rule.arrived(0.001)
    rule.ended(1, 0.010)

    assert [rule.limit(), rule.limit(), rule.limit()] == [128, 128, 44]


def test_the_adaptive_rule_closes_a_batch_when_the_next_arrival_is_far() -> None:
    """Ten arrivals a second: waiting 0.1 s for the ninth pass does not pay."""
    rule = Adaptive()
    rule.arrived(0.0)
    rule.limit()
    for count in range(8):
        rule.arrived(0.001 + 0.005 * count)
    rule.ended(1, 0.050)
    for _ in range(3):
        rule.arrived(1.0)

    assert [rule.limit(), rule.limit()] == [8, 3]


def test_rules_are_chosen_by_name() -> None:
    assert {type(dispatch_named(name)) for name in POLICIES} == {
        Gather,
        Eager,
        FixedSize,
        FixedWait,
        Adaptive,
    }
    with pytest.raises(UsageError, match="'greedy'; it may be gather, eager"):
        dispatch_named("greedy")


def test_the_pace_is_measured_and_forgotten() -> None:
    pace = Pace()
    seconds, passes = 0.0, 0
    for _ in range(50):
        seconds, passes = seconds + 0.0064, passes + 64
        settle = pace.learn(seconds, passes)
    assert settle == pytest.approx(100e-6)
    for _ in range(50):
        seconds, passes = seconds + 0.0032, passes + 64
        settle = pace.learn(seconds, passes)
    assert settle == pytest.approx(50e-6, rel=0.01)


def test_nothing_submitted_means_no_pace() -> None:
    assert Pace().learn(1.0, 0) == 0


def linear(rows: float) -> float:
    return 0.006 + 80e-6 * rows


def test_without_host_cost_the_best_is_everybody_in_every_step() -> None:
    assert best_throughput(256, linear, 0.0) == pytest.approx(256 / linear(256))


def test_the_best_is_one_group_or_two_or_what_the_host_can_do() -> None:
    """The three regimes of the bound: wait for all, take turns, host saturated."""
    one = 64 / (linear(64) + 64 * 20e-6)
    two = 256 / (2 * linear(128))

    assert best_throughput(64, linear, 20e-6) == pytest.approx(one)
    assert best_throughput(256, linear, 50e-6) == pytest.approx(two)
    assert best_throughput(256, linear, 1e-3) == pytest.approx(1000)


def test_the_step_time_is_learned_and_forgotten() -> None:
    fit = StepTime()
    for passes in (1, 8, 64, 300) * 20:
        fit.learn(passes, passes, passes * 100, 0.020 + 0.0001 * passes)
    slow = fit.seconds(64, 64, 6400)
    for passes in (1, 8, 64, 300) * 20:
        fit.learn(passes, passes, passes * 100, 0.002 + 0.00001 * passes)
    fast = fit.seconds(64, 64, 6400)

    assert slow == pytest.approx(0.0264, rel=0.05)
    assert fast == pytest.approx(0.00264, rel=0.2)


def test_what_different_steps_told_is_not_lost_in_a_thousand_equal_ones() -> None:
    """The overhead of a step cannot be told from its rows when all steps look alike."""
    fit = StepTime()
    for passes in (1, 20, 64, 8, 64):
        fit.learn(passes, passes, 0, 0.006 + 0.0001 * passes)
    for _ in range(1000):
        fit.learn(64, 64, 0, 0.006 + 0.0001 * 64)

    assert fit.overhead == pytest.approx(0.006, rel=0.05)


def test_rows_of_a_long_pass_cost_what_they_cost_not_what_passes_cost() -> None:
    fit = StepTime()
    for passes, rows in ((8, 8), (8, 264), (16, 100), (30, 30), (1, 500)) * 4:
        fit.learn(passes, rows, 0, 0.006 + 80e-6 * passes + 25e-6 * (rows - passes))

    assert fit.row_seconds == pytest.approx(25e-6, rel=0.02)
    assert fit.seconds(10, 110, 0) == pytest.approx(0.0093, rel=0.02)


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 500), st.integers(0, 400_000))))
def test_no_step_is_predicted_to_take_less_for_more(steps: list[tuple[int, int, int]]) -> None:
    """Whatever was measured, coefficients do not become negative."""
    fit = StepTime()
    for number, (passes, more, slots) in enumerate(steps):
        fit.learn(passes, passes + more, slots, 0.001 * (number % 7 + 1))

        assert fit.overhead >= 0
        assert 0 <= fit.seconds(1, 1, 0) <= fit.seconds(2, 2, 0) <= fit.seconds(2, 9, 5)
