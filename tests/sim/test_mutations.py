"""The sweep over seeds finds bugs: those that were put in on purpose, each within a few seeds."""

from __future__ import annotations

from functools import cache

import pytest

from pie.testing.sim import Scenario, SimulationFailed, load_scenario, run_seed
from pie.testing.sim.verdict import Solo

from .mutations import MUTATIONS, Mutation

SEEDS = 60
"""Within which a bug has to show."""


SOLO = Solo()
"""What guests give alone, on the engine as it is."""


@cache
def _passes(scenario: Scenario, seed: int) -> bool:
    """Whether the engine as it is passes."""
    run_seed(scenario, seed, solo=SOLO)
    return True


@pytest.mark.makes_a_bug
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_sweep_finds_a_bug(mutation: Mutation) -> None:
    scenario = load_scenario(mutation.scenario)
    for seed in dict.fromkeys((mutation.first, *range(SEEDS))):
        assert _passes(scenario, seed)
        try:
            with mutation.applied():
                run_seed(scenario, seed, solo=SOLO)
        except SimulationFailed:
            return
    pytest.fail(f"{SEEDS} seeds of {mutation.scenario} do not see that {mutation.name}")


def test_there_are_bugs_of_many_kinds() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 20


def test_a_bug_that_no_longer_fits_the_source_is_told() -> None:
    """Otherwise it would be found missing, or never be a bug again."""
    first = MUTATIONS[0]
    stale = Mutation(name="x", owner=first.owner, function=first.function, old="no such", new="")

    with pytest.raises(LookupError, match="has no 'no such': adapt 'x'"), stale.applied():
        pass
