"""Runs the cases one after the other, each in a process of its own, and prints the tables.

Exits with 1 when a case failed: a wrong text, a leak, a crash or its time limit. Timings decide
nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console

from .cases import CASES
from .goals import Results, judged
from .machine import Row
from .report import show, speed

ROOT = Path(__file__).parents[2]


def chosen(only: str | None, *, quick: bool) -> list[str]:
    """The cases of a run: `only` names cases or the beginnings of their names, "tokens/wat"."""
    if only is None:
        return [name for name, case in CASES.items() if case.quick or not quick]
    found: list[str] = []
    for word in only.split(","):
        exact = [name for name in CASES if name == word]
        below = [
            name
            for name, case in CASES.items()
            if f"{name}/".startswith(f"{word}/") and (case.quick or not quick)
        ]
        if not (exact or below):
            raise SystemExit(f"no case is called {word!r}; there are: {', '.join(CASES)}")
        found += [name for name in exact or below if name not in found]
    return found


def run_case(name: str, *, quick: bool) -> Row:
    """The figures of a case, measured in a child; a row with `failed` if that did not work."""
    command = [sys.executable, "-m", "benchmarks.host.cases", name, *(["--quick"] * quick)]
    limit = CASES[name].seconds
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {limit:g} s"}
    if done.returncode:
        sys.stderr.write(done.stderr)
        return {"failed": reason_in(done.stderr) or f"ended with {done.returncode}"}
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def reason_in(report: str) -> str:
    """The first error that a traceback, perhaps of a group, ends with; its last line if none."""
    lines = [line.strip(" |+-") for line in report.splitlines()]
    errors = [line for line in lines if re.match(r"[\w.]+(Error|Closed|Exceeded|Failed)\b", line)]
    return next(iter(errors or lines[-1:]), "")


def run_all(names: Iterable[str], console: Console, *, quick: bool) -> Results:
    results: Results = {}
    for name in names:
        began = time.perf_counter()
        results[name] = run_case(name, quick=quick)
        console.print(f"{name}: {time.perf_counter() - began:.1f} s", style="dim")
    return results


def wide_console() -> Console:
    """The terminal, or room for every column where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def machine() -> Row:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.host", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute in all, coarser")
    parser.add_argument("--only", metavar="NAME,...", help="cases, or parts such as tokens/wat")
    parser.add_argument("--json", type=Path, metavar="OUT")
    options = parser.parse_args(arguments)
    facts = machine()
    names = chosen(options.only, quick=options.quick)
    results = run_all(names, Console(stderr=True), quick=options.quick)
    show(results, wide_console())
    if options.json:
        report = {
            "quick": options.quick,
            "machine": facts | speed(results),
            "results": results,
            "goals": judged(results),
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return int(any("failed" in row for row in results.values()))


if __name__ == "__main__":
    sys.exit(main())
