"""What the figures are held against. A goal that is missed is reported, and no error."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from .machine import Row

Results = dict[str, Row]
"""The rows of a run by the name of their case; one that was not measured has `skipped`."""


@attrs.frozen
class Goal:
    """A figure with its limit."""

    name: str
    limit: float
    unit: str
    value: Callable[[Results], float]
    """Raises KeyError when what it needs was not measured."""
    at_least: bool = False

    def judge(self, results: Results) -> Row:
        """`value` and `met` are None when it was not measured."""
        try:
            value = self.value(results)
        except KeyError:
            return {**self._facts(), "value": None, "met": None}
        met = value >= self.limit if self.at_least else value <= self.limit
        return {**self._facts(), "value": value, "met": met}

    def _facts(self) -> Row:
        relation = ">=" if self.at_least else "<="
        return {"goal": self.name, "relation": relation, "limit": self.limit, "unit": self.unit}


def _figure(case: str, name: str) -> Callable[[Results], float]:
    return lambda results: float(results[case][name])


def _ratio(above: str, below: str, name: str) -> Callable[[Results], float]:
    return lambda results: float(results[above][name]) / float(results[below][name])


GOALS = (
    Goal(
        "1,000 WAT guests, tokens per second of processor time",
        15_000,
        "tok/s",
        _figure("tokens/wat/1000", "tokens_per_cpu_second"),
        at_least=True,
    ),
    Goal(
        "1,000 Python guests, tokens per second of processor time",
        3_000,
        "tok/s",
        _figure("tokens/python/1000", "tokens_per_cpu_second"),
        at_least=True,
    ),
    Goal(
        "1,000 WAT guests, loop latency p95, its own",
        12,
        "ms",
        _figure("tokens/wat/1000", "own_latency_ms_p95"),
    ),
    Goal(
        "1,000 Python guests, loop latency p95, its own",
        12,
        "ms",
        _figure("tokens/python/1000", "own_latency_ms_p95"),
    ),
    *(
        Goal(
            f"a token at 10,000 {kind} guests to one at 100",
            1.3,
            "x",
            _ratio(f"tokens/{name}/10000", f"tokens/{name}/100", "us_per_token"),
        )
        for kind, name in (("WAT", "wat"), ("native", "native"))
    ),
    *(
        Goal(
            f"planner and queue, {requests:,} requests",
            20,
            "µs",
            _figure(f"planner/{requests}", "total_us"),
        )
        for requests in (10, 100, 1_000, 10_000)
    ),
    Goal(
        "planner and queue, 10,000 requests to 100",
        1.3,
        "x",
        _ratio("planner/10000", "planner/100", "total_us"),
    ),
    Goal(
        "warm launch of a small component, median to its end",
        1,
        "ms",
        _figure("launch/warm/wat", "terminal_event_ms_median"),
    ),
    Goal(
        "warm launch of a Python component, the same",
        5,
        "ms",
        _figure("launch/warm/python", "terminal_event_ms_median"),
    ),
    *(
        Goal(
            f"memory of an idle WAT guest, of {guests:,}",
            64,
            "KiB",
            _figure(f"memory/wat/{guests}", "kib_per_guest"),
        )
        for guests in (1_000, 10_000)
    ),
    Goal(
        "memory of an idle Python guest, of 100",
        1638.4,
        "KiB",
        _figure("memory/python/100", "kib_per_guest"),
    ),
)


def judged(results: Results) -> list[Row]:
    """Every goal with what was measured."""
    return [goal.judge(results) for goal in GOALS]
