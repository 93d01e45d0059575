"""Rules for starting batches, against each other, on a simulated H100 with an 8B model.

    python -m benchmarks.scheduling [--quick] [--host-us 50] [--json OUT] [--svg OUT]

The real scheduler in virtual time, with scripted guests: the same figures on every machine.
`--host-us` is the host's own cost per pass, as `python -m benchmarks.host` measures it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import attrs

from pie.actors.dispatch import POLICIES
from pie.config import Scheduling
from pie.testing import H100, LLAMA_3_8B

from .bounds import Bound
from .plot import line_plot
from .report import possible, rules
from .workloads import Figures, Setting, Workload, looping, overload, prompts, simulate, tools

STEP_TOKENS = 4096
OVERLOADED_TOKENS = 64
CONTEXT = 1600


def scheduling(rule: str, step_tokens: int = STEP_TOKENS) -> Scheduling:
    """Of a rule; the published system has no chunked prefill, and budgets of its own."""
    if rule == "adaptive":
        return Scheduling(dispatch=rule, step_tokens=10_240, prefill_slowdown=math.inf)
    return Scheduling(dispatch=rule, step_tokens=step_tokens)


def compare(quick: bool, host_seconds: float) -> dict[str, dict[str, Figures]]:
    """Every rule on every workload."""
    short = 2 if quick else 1
    workloads: dict[str, Workload] = {
        "256 guests": looping(256, CONTEXT, 48 // short),
        "64 guests": looping(64, CONTEXT, 48 // short),
        "prompts": prompts(64, 2000, 160 // short, clients=4, prompt=3000),
        "tools": tools(128, 1000, 48 // short),
        "two users": overload(300, 100, 1.0 / short),
    }
    results: dict[str, dict[str, Figures]] = {}
    for name, workload in workloads.items():
        budget = OVERLOADED_TOKENS if name == "two users" else STEP_TOKENS
        settings = {rule: scheduling(rule, budget) for rule in POLICIES}
        if name == "two users":
            settings["adaptive"] = attrs.evolve(settings["adaptive"], step_tokens=budget)
        results[name] = {
            rule: simulate(workload, Setting(scheduling=setting, host_seconds=host_seconds))
            for rule, setting in settings.items()
        }
    no_goal = attrs.evolve(scheduling("gather"), prefill_slowdown=math.inf)
    results["prompts"]["gather, whole prompts"] = simulate(
        workloads["prompts"], Setting(scheduling=no_goal, host_seconds=host_seconds)
    )
    return results


def bound(guests: int, tokens: int) -> Bound:
    """Of looping guests halfway through their tokens."""
    return Bound(H100, LLAMA_3_8B, guests, CONTEXT + tokens // 2)


def sweep(
    x: list[float], case: Callable[[float], tuple[int, float]], tokens: int
) -> dict[str, list[float]]:
    """Shares of the ideal, of the best rule and of each; `case` gives (guests, host cost)."""
    series: dict[str, list[float]] = {name: [] for name in ("bound", *POLICIES)}
    for value in x:
        guests, host_seconds = case(value)
        limit = bound(guests, tokens)
        series["bound"].append(limit.best(host_seconds) / limit.ideal)
        for rule in POLICIES:
            setting = Setting(scheduling=scheduling(rule), host_seconds=host_seconds)
            got = simulate(looping(guests, CONTEXT, tokens), setting)
            series[rule].append(got.throughput / limit.ideal)
    return series


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--host-us", type=float, default=50.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args()
    host_seconds = options.host_us * 1e-6
    results = compare(options.quick, host_seconds)
    short = 2 if options.quick else 1
    limits = {"256 guests": bound(256, 48 // short), "64 guests": bound(64, 48 // short)}
    bounds = {name: (limit.best(host_seconds), limit.ideal) for name, limit in limits.items()}
    print(f"host cost {options.host_us:g} µs per pass, H100, {LLAMA_3_8B.name}\n")
    print(rules(results, bounds), end="\n\n")
    print(possible())
    if options.svg:
        counts = [16.0, 32.0, 64.0, 128.0, 256.0]
        series = sweep(counts, lambda guests: (round(guests), host_seconds), 24 // short)
        title = f"Share of the ideal loop's throughput, {options.host_us:g} µs of host per pass"
        options.svg.write_text(line_plot(title, "looping guests", counts, series))
    if options.json:
        found = {
            workload: {rule: attrs.asdict(row) for rule, row in rows.items()}
            for workload, rows in results.items()
        }
        options.json.write_text(json.dumps({"host_us": options.host_us, **found}, indent=1))


if __name__ == "__main__":
    main()
