"""Scenarios: what kinds of guests meet on what kinds of machines, as data.

A scenario gives ranges; a seed draws one machine and its guests from them (see `plan`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import attrs

from pie.errors import UsageError

from .programs import PROGRAMS


@attrs.frozen
class Range:
    """Numbers from `least` to `most`, both included."""

    least: float
    most: float

    @property
    def whole(self) -> tuple[int, int]:
        return int(self.least), int(self.most)


def _range(least: float, most: float) -> Any:
    return attrs.field(default=Range(least, most))


@attrs.frozen(kw_only=True)
class Scenario:
    """One kind of run. Times are in seconds of Trio's clock."""

    name: str
    programs: Mapping[str, float] = attrs.field(hash=False)
    """Weight of each program (`pie.testing.sim.programs`) among the guests."""
    guests: Range = _range(4, 12)
    users: Range = _range(1, 3)
    arrival_seconds: Range = _range(0, 0.5)
    """Over how long the guests arrive."""
    max_passes_in_flight: Range = _range(2, 64)

    # The machine.
    pages: Range = _range(16, 48)
    page_size: Range = _range(2, 8)
    host_pages: Range = _range(0, 64)
    ample_host: float = 0.5
    """Probability of host memory without a practical limit: nobody may be ended for memory."""
    embedding_slots: Range = _range(4, 8)
    adapter_slots: Range = _range(2, 4)
    step_tokens: Range = _range(4, 64)
    ageing_seconds: Range = _range(0.02, 2)
    step_seconds: Range = _range(0.001, 0.02)
    row_seconds: Range = _range(0, 0.001)
    jitter: Range = _range(0, 2)
    disk: float = 0.0
    """Probability that kvs and exports are kept in a folder."""

    # What goes wrong, as probabilities.
    faulty: float = 0.0
    """Of a machine that fails at all; the others are of each of its batches."""
    disk_full: float = 0.0
    """Of each write of an export or pair; the next may succeed."""
    slow_files: float = 0.0
    """Of each call that touches files."""
    lost: float = 0.05
    lost_calls: float = 0.0
    """Of each call that is no step: a move of pages, a command."""
    slow: float = 0.05
    not_finite: float = 0.05
    killed: float = 0.0
    """Of each guest: its client terminates it at a random time."""
    shut_down: float = 0.0
    """Of the run: the engine is left while guests run."""
    slow_client: float = 0.1
    """Of each guest: its client takes its time between two messages."""

    @property
    def has_components(self) -> bool:
        return any(PROGRAMS[name].component for name in self.programs)


BUILT_IN = resources.files("pie.testing.sim") / "scenarios"
DEFAULT = "mixed"


def scenario_names() -> list[str]:
    """The scenarios that come with Pie."""
    return sorted(
        path.name.removesuffix(".toml")
        for path in BUILT_IN.iterdir()
        if path.name.endswith(".toml")
    )


def load_scenario(name: str) -> Scenario:
    """A scenario that comes with Pie, or of a TOML file. UsageError says what is wrong in it."""
    if name in scenario_names():
        return parse_scenario((BUILT_IN / f"{name}.toml").read_text(), name)
    if not name.endswith(".toml"):
        known = ", ".join(scenario_names())
        raise UsageError(f"no scenario {name!r}: give a .toml file, or one of {known}")
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read scenario {name}: {reason}") from error
    return parse_scenario(text, name)


def parse_scenario(text: str, name: str) -> Scenario:
    """The scenario that is written in `text`. UsageError says what is wrong in it."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"scenario {name}: {error}") from error
    kinds = {field.name: str(field.type) for field in attrs.fields(Scenario)}
    unknown = [key for key in table if key not in kinds or key == "name"]
    if unknown:
        known = ", ".join(sorted(kinds.keys() - {"name"}))
        raise UsageError(f"scenario {name}: {unknown[0]!r} is not one of {known}")
    if "programs" not in table:
        raise UsageError(f"scenario {name}: no [programs]: a table of program = weight")
    values: dict[str, Any] = {
        key: _programs(value, name)
        if key == "programs"
        else _checked_range(key, value, name)
        if kinds[key] == "Range"
        else _probability(key, value, name)
        for key, value in table.items()
    }
    # Not the path: seeds are to mean the same wherever the file is.
    return _checked(Scenario(name=Path(name).stem, **values), name)


def _programs(value: Any, name: str) -> Mapping[str, float]:
    if not isinstance(value, dict) or not value:
        raise UsageError(f"scenario {name}: programs is not a table of program = weight")
    for program, weight in value.items():
        if program not in PROGRAMS:
            known = ", ".join(sorted(PROGRAMS))
            raise UsageError(f"scenario {name}: no program {program!r}, there are {known}")
        if not _is_number(weight) or weight <= 0:
            raise UsageError(f"scenario {name}: weight {weight!r} of {program} is not above 0")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _checked_range(key: str, value: Any, name: str) -> Range:
    ends = value if isinstance(value, list) else [value, value]
    if len(ends) != 2 or not all(map(_is_number, ends)) or not 0 <= ends[0] <= ends[1]:
        raise UsageError(
            f"scenario {name}: {key} = {value!r} is neither a number nor [least, most], "
            "0 <= least <= most"
        )
    return Range(float(ends[0]), float(ends[1]))


def _probability(key: str, value: Any, name: str) -> float:
    if not _is_number(value) or not 0 <= value <= 1:
        raise UsageError(f"scenario {name}: {key} = {value!r} is not a probability from 0 to 1")
    return float(value)


LEAST = {
    "guests": 1,
    "users": 1,
    "max_passes_in_flight": 1,
    "pages": 16,
    "page_size": 1,
    "embedding_slots": 4,
    "adapter_slots": 1,
    "step_tokens": 1,
    "ageing_seconds": 0.001,
}
"""What programs need at least, or the engine."""
MOST = 10_000
"""Of anything: runs are meant to be small and many."""


def _checked(scenario: Scenario, name: str) -> Scenario:
    for key, least in LEAST.items():
        if getattr(scenario, key).least < least:
            raise UsageError(f"scenario {name}: {key} is below {least}")
    for field in attrs.fields(Scenario):
        value = getattr(scenario, field.name)
        if isinstance(value, Range) and value.most > MOST:
            raise UsageError(f"scenario {name}: {field.name} is above {MOST}")
    return scenario
