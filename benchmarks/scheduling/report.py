"""The figures as Markdown tables, for people and for docs/scheduling.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from .bounds import CASES, GUESTS, full
from .workloads import Figures

Results = Mapping[str, Mapping[str, Figures]]
"""Workload -> rule -> figures."""
HOST_COSTS = (10e-6, 25e-6, 50e-6, 65e-6, 100e-6, 150e-6)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---", *["--:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rules(results: Results, bounds: Mapping[str, tuple[float, float]]) -> str:
    """A row for each rule; `bounds` are (best, ideal) throughputs of the looping guests."""
    heads = ["", *(f"{name}: of the bound / of the ideal" for name in bounds)]
    heads += ["prompts: throughput of peak", "p99 / p50 between tokens"]
    heads += ["tools: tokens/s", "p99 ms", "two users: fairness"]
    peak = min(row.seconds for row in results["prompts"].values())
    rows = []
    for rule, prompts in results["prompts"].items():
        row = [rule]
        for name, (best, ideal) in bounds.items():
            got = results[name].get(rule)
            row.append(_or_dash(got, partial(_shares, best=best, ideal=ideal)))
        row += [f"{peak / prompts.seconds:.1%}", f"{prompts.p99 / prompts.p50:.2f}"]
        tools, users = results["tools"].get(rule), results["two users"].get(rule)
        row.append(_or_dash(tools, lambda f: f"{f.throughput:,.0f}"))
        row.append(_or_dash(tools, lambda f: f"{f.p99 * 1e3:.1f}"))
        row.append(_or_dash(users, lambda f: f"{f.fairness:.3f}"))
        rows.append(row)
    return table(heads, rows)


def _shares(got: Figures, *, best: float, ideal: float) -> str:
    return f"{got.throughput / best:.1%} / {got.throughput / ideal:.1%}"


def _or_dash(got: Figures | None, text: Callable[[Figures], str]) -> str:
    return "–" if got is None else text(got)


def possible() -> str:
    """What the best rule reaches of the ideal loop, by machine and host cost."""
    heads = [f"{GUESTS} guests, contexts as long as memory holds", "context", "ideal tokens/s"]
    heads += [f"{cost * 1e6:.0f} µs" for cost in HOST_COSTS]
    heads.append("90 % needs at most")
    rows = []
    for machine, shape in CASES:
        bound = full(machine, shape)
        row = [f"{machine.name}, {shape.name}", f"{bound.context:,}", f"{bound.ideal:,.0f}"]
        row += [f"{bound.best(cost) / bound.ideal:.0%}" for cost in HOST_COSTS]
        row.append(f"{bound.largest_host_seconds(0.9) * 1e6:.0f} µs")
        rows.append(row)
    return table(heads, rows)
