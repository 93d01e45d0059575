"""One seed decides everything, in any process."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from pie.testing.sim import load_scenario, run_seed, scenario_names, steady_memory

SEEDS = range(1000, 1006)

_DIGESTS = """
import sys
from pie.testing.sim import load_scenario, run_seed
scenario = load_scenario(sys.argv[1])
for seed in map(int, sys.argv[2:]):
    print(run_seed(scenario, seed).digest)
"""


def _digests(scenario: str) -> list[str]:
    with steady_memory():
        return [run_seed(load_scenario(scenario), seed).digest for seed in SEEDS]


def _digests_elsewhere(scenario: str, hash_seed: int) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _DIGESTS, scenario, *map(str, SEEDS)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
    )
    return done.stdout.split()


@pytest.mark.parametrize("scenario", scenario_names())
def test_a_seed_gives_the_same_events_again_and_in_another_process(scenario: str) -> None:
    """Whatever the order of sets and hashes there is."""
    first = _digests(scenario)

    assert _digests(scenario) == first
    assert _digests_elsewhere(scenario, 1) == first
    assert _digests_elsewhere(scenario, 12345) == first


def test_seeds_differ() -> None:
    assert len(set(_digests("mixed"))) == len(SEEDS)


def test_the_log_is_what_is_hashed() -> None:
    log = io.StringIO()
    report = run_seed(load_scenario("mixed"), 3, log=log)

    lines = log.getvalue().splitlines()
    assert len(lines) == report.events
    assert all(float(line.split()[0]) >= 0 for line in lines)
    assert not [line for line in lines if "0x" in line]
