"""One seed decides everything, in any process."""

from __future__ import annotations

import io
import os
import subprocess
import sys

from pie.testing.sim import load_scenario, run_seed, scenario_names, steady_memory

SEEDS = range(1000, 1003)

_DIGESTS = """
import sys
from pie.testing.sim import load_scenario, run_seed, scenario_names
for name in scenario_names():
    for seed in map(int, sys.argv[1:]):
        print(run_seed(load_scenario(name), seed).digest)
"""


def _digests() -> list[str]:
    with steady_memory():
        return [
            run_seed(load_scenario(name), seed).digest
            for name in scenario_names()
            for seed in SEEDS
        ]


def _digests_elsewhere(hash_seed: int) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _DIGESTS, *map(str, SEEDS)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
    )
    return done.stdout.split()


def test_a_seed_gives_the_same_events_again_and_in_other_processes() -> None:
    """Whatever the order of sets and hashes there is, and whatever ran before."""
    first = _digests()

    assert len(set(first)) == len(first)
    assert _digests() == first
    assert _digests_elsewhere(1) == first
    assert _digests_elsewhere(12345) == first


def test_the_log_is_what_is_hashed() -> None:
    log = io.StringIO()
    report = run_seed(load_scenario("mixed"), 3, log=log)

    lines = log.getvalue().splitlines()
    assert len(lines) == report.events
    assert all(float(line.split()[0]) >= 0 for line in lines)
    assert not [line for line in lines if "0x" in line]
