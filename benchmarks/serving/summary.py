"""From the values of a run to ratios and goals."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.host.goals import Goal

from .agents.jobs import TITLES
from .cases import CASES
from .contenders import BARE, OURS, Row
from .tax import tax

median = statistics.median

GOALS = {
    **{"decode": 1.5, "prefill": 1.3, "c8": 1.8, "c32": 1.4, "seen": 1.0},
    **dict.fromkeys(TITLES, 1.3),
}
"""Part -> times the best peer, at least."""
TAX_GOALS = {"1": 0.03, "8": 0.03, "32": 0.06}


def title_of(part: str) -> str:
    """Of a case or a job."""
    return CASES[part].title if part in CASES else TITLES[part]


def less_is_better(part: str) -> bool:
    """Of the figures of a case, or the seconds of a job."""
    return part not in CASES or not CASES[part].more_is_better


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


def found(report: Row, part: str) -> Row:
    """What a part has found; empty if it was not measured."""
    figures: Row = report["parts"].get(part, {}).get("found", {})
    return figures


def ratios(report: Row, part: str) -> Row:
    """Ours against the best peer, and against the bare loop; only what was measured."""
    values, less, row = found(report, part), less_is_better(part), Row()
    if OURS in values:
        best = best_peer(values, less=less)
        if best is not None:
            row |= {"best": best, **ratio(values[OURS], values[best], less=less)}
        if BARE in values:
            row["of_bare"] = ratio(values[OURS], values[BARE], less=less)["ratio"]
    return row


def judged(report: Row) -> list[Row]:
    """Every goal with what was measured; a miss is reported, and no error."""
    return [goal.judge({"all": report}) for goal in _goals()]


def _goals() -> list[Goal]:
    goals = [
        Goal(f"{part}: times the best peer", least, "x", _ratio(part), at_least=True)
        for part, least in GOALS.items()
    ]
    for streams, most in TAX_GOALS.items():
        for guest in ("c", "python", "c-steps"):
            name = f"tax at {streams} streams, {guest} guests"
            goals.append(Goal(name, most * 100, "%", _tax(streams, guest)))
    return [
        *goals,
        Goal("throughput beside a neighbour", 40, "%", _beside, at_least=True),
        Goal("loop latency p99", 10, "ms", _late),
        Goal("pie run, warm, to the first token", 2, "s", _warm),
        Goal("pie run, the very first, the same", 15, "s", _first),
    ]


def _ratio(part: str) -> Callable[[Any], float]:
    return lambda results: float(ratios(results["all"], part)["ratio"])


def _tax(streams: str, guest: str) -> Callable[[Any], float]:
    return lambda results: tax(found(results["all"], "tax")[streams], guest) * 100


def _beside(results: Any) -> float:
    return share(found(results["all"], "neighbour")[OURS]) * 100


def _late(results: Any) -> float:
    return float(found(results["all"], "latency")["latency_ms_p99"])


def _warm(results: Any) -> float:
    return float(median(found(results["all"], "startup")["warm_seconds"]))


def _first(results: Any) -> float:
    return float(found(results["all"], "startup")["first_seconds"])


def share(rounds: Sequence[Row]) -> float:
    """Of the undisturbed throughput."""
    alone, beside = (median(row[kind] for row in rounds) for kind in ("alone", "beside"))
    return float(beside / alone)
