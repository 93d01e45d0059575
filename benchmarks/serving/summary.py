"""From the values of a run to ratios and goals."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.host.goals import Goal

from .contenders import BARE, OURS, Row
from .tax import tax

median = statistics.median

SPEED_GOALS = {"decode": 1.5, "prefill": 1.3, "c8": 1.8, "c32": 1.4}
"""Times the best peer, at least."""
TAX_GOALS = {"1": 0.03, "8": 0.03, "32": 0.06}
AGENT_GOAL = 1.3
_LESS = ("seen", "prefix")
"""Cases of which less is better."""


def best_peer(values: Mapping[str, Sequence[float]], *, less: bool) -> str | None:
    """The name of the best of those who are not us."""
    peers = {name: median(each) for name, each in values.items() if name not in (OURS, BARE)}
    if not peers:
        return None
    return (min if less else max)(peers, key=lambda name: peers[name])


def ratio(one: Sequence[float], other: Sequence[float], *, less: bool) -> Row:
    """How many times better `one` is: of the medians, with the extremes of the rounds."""
    pairs = [(b / a if less else a / b) for a, b in zip(one, other, strict=False)]
    whole = median(other) / median(one) if less else median(one) / median(other)
    return {"ratio": whole, "low": min(pairs), "high": max(pairs)}


def speed_ratios(values: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Row]:
    """Case -> ours against the best peer, and against the bare loop; only what was measured."""
    found: dict[str, Row] = {}
    for case, by_name in values.items():
        if OURS not in by_name:
            continue
        less, row = case in _LESS, Row()
        best = best_peer(by_name, less=less)
        if best is not None:
            row |= {"best": best, **ratio(by_name[OURS], by_name[best], less=less)}
        if BARE in by_name:
            row["of_bare"] = ratio(by_name[OURS], by_name[BARE], less=less)["ratio"]
        found[case] = row
    return found


def agent_ratios(found: Mapping[str, Row]) -> dict[str, Row]:
    """Job -> how many times faster than the best client of a peer."""
    rows: dict[str, Row] = {}
    for job, each in found.items():
        seconds = each["seconds"]
        best = best_peer(seconds, less=True)
        if best is not None and OURS in seconds:
            rows[job] = {"best": best, **ratio(seconds[OURS], seconds[best], less=True)}
    return rows


def judged(report: Row) -> list[Row]:
    """Every goal with what was measured; a miss is reported, and no error."""
    flat: dict[str, Row] = {"all": report}
    return [goal.judge(flat) for goal in _goals()]


def _goals() -> list[Goal]:
    goals = [
        _goal(f"{case}: times the best peer", least, "x", _part("ratios", case, "ratio"), True)
        for case, least in SPEED_GOALS.items()
    ]
    goals.append(
        _goal("seen: times the best peer", 1.0, "x", _part("ratios", "seen", "ratio"), True)
    )
    for streams, most in TAX_GOALS.items():
        for guest in ("c", "python"):
            name = f"tax at {streams} streams, {guest} guests"
            goals.append(_goal(name, most * 100, "%", _tax(streams, guest)))
    goals.append(_goal("throughput beside a neighbour", 40, "%", _beside, True))
    goals.append(_goal("loop latency p99", 10, "ms", _part("latency", "latency_ms_p99")))
    goals.append(_goal("pie run, warm, to the first token", 2, "s", _warm))
    goals.append(
        _goal("pie run, the very first, the same", 15, "s", _part("startup", "first_seconds"))
    )
    goals += [
        _goal(
            f"{job}: times the best client",
            AGENT_GOAL,
            "x",
            _part("agent_ratios", job, "ratio"),
            True,
        )
        for job in ("tree", "fanout", "objects", "tools8", "tools32", "speculation")
    ]
    return goals


def _goal(
    name: str, limit: float, unit: str, value: Callable[[Any], float], at_least: bool = False
) -> Goal:
    return Goal(name, limit, unit, value, at_least)


def _part(*path: str) -> Callable[[Any], float]:
    """What lies at `path` of the report; KeyError if it was not measured."""

    def value(results: Any) -> float:
        place = results["all"]
        for name in path:
            place = place[name]
        return float(place)

    return value


def _tax(streams: str, guest: str) -> Callable[[Any], float]:
    return lambda results: tax(results["all"]["tax"][streams], guest) * 100


def _beside(results: Any) -> float:
    row = results["all"]["neighbour"][OURS]
    return share(row) * 100


def _warm(results: Any) -> float:
    return float(median(results["all"]["startup"]["warm_seconds"]))


def share(row: Row) -> float:
    """Of the undisturbed throughput."""
    return float(median(row["beside"]) / median(row["alone"]))
