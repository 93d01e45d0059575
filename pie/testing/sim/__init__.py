"""Deterministic simulation: the real control plane on a simulated machine, decided by one seed.

A *scenario* says what kinds of guests meet on what kinds of machines; a seed draws one run from
it: machine, guests, arrivals, order of tasks, latencies, faults. After every event invariants are
checked, and at the end every guest's result is compared with what it gives alone.
"""

from .scenario import DEFAULT, Range, Scenario, load_scenario, parse_scenario, scenario_names
from .sweep import Report, SimulationFailed, Summary, run_seed, run_threaded, steady_memory, sweep
from .verdict import Solo

__all__ = [
    "DEFAULT",
    "Range",
    "Report",
    "Scenario",
    "SimulationFailed",
    "Solo",
    "Summary",
    "load_scenario",
    "parse_scenario",
    "run_seed",
    "run_threaded",
    "scenario_names",
    "steady_memory",
    "sweep",
]
