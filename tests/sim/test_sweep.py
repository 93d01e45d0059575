"""Many seeds of every scenario: invariants hold, and everybody gets what it gets alone."""

from __future__ import annotations

import pytest

from pie.testing.sim import Summary, load_scenario, scenario_names, sweep

from .sweeping import SHORT, short_sweep

LONG = 10_000
"""Seeds of all scenarios together in `make test-long`."""


def _sweep(scenario: str, seeds: range, *, threaded: bool = False) -> Summary:
    summary = sweep(load_scenario(scenario), seeds, threaded=threaded)
    assert summary.failures == []
    assert summary.seeds == len(seeds)
    return summary


@pytest.mark.parametrize("scenario", scenario_names())
def test_no_seed_fails(scenario: str) -> None:
    summary = short_sweep(scenario)
    assert summary.failures == []
    assert summary.seeds == SHORT


@pytest.mark.long
@pytest.mark.parametrize("scenario", scenario_names())
def test_no_seed_fails_at_length(scenario: str) -> None:
    _sweep(scenario, range(SHORT, SHORT + LONG // len(scenario_names())))


@pytest.mark.slow
def test_the_same_guests_are_as_well_off_with_real_threads() -> None:
    _sweep("mixed", range(3), threaded=True)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("scenario", scenario_names())
def test_the_same_guests_are_as_well_off_with_real_threads_at_length(scenario: str) -> None:
    """More than a hundred times in all."""
    _sweep(scenario, range(20), threaded=True)
