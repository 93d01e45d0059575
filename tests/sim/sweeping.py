"""The sweep of `make test`, run once for all tests that look at it."""

from __future__ import annotations

from functools import cache

from pie.testing.sim import Summary, load_scenario, sweep

SHORT = 50
"""Seeds of each scenario."""


@cache
def short_sweep(scenario: str) -> Summary:
    """What the first seeds of a scenario came to."""
    return sweep(load_scenario(scenario), range(SHORT))
