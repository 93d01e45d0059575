"""`pie sim`: sweeps seeds of a simulated scenario, and says how to replay one that fails."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import attrs
import typer

from pie.errors import UsageError
from pie.testing.sim import SimulationFailed, Summary, load_scenario, sweep

from .progress import progress

MOST_FAILURES = 5


@attrs.frozen(kw_only=True)
class Options:
    """What `pie sim` was asked to do."""

    seeds: str
    scenario: str
    log: str | None
    threads: bool


def simulate(options: Options) -> int:
    """Sweep, and report; the exit code."""
    seeds = parse_seeds(options.seeds)
    scenario = load_scenario(options.scenario)
    with _log_file(options.log) as log, progress() as say:
        summary = sweep(
            scenario,
            seeds,
            threaded=options.threads,
            most_failures=MOST_FAILURES,
            log=log,
            say=say,
        )
    for failure in summary.failures:
        _show_failure(failure, options)
    _show(summary)
    return int(bool(summary.failures))


def parse_seeds(text: str) -> range:
    """`7`, or `0..99` with both ends. UsageError for anything else."""
    found = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", text)
    if found is None:
        raise UsageError(f"--seeds {text!r} is neither a number nor A..B")
    first, last = int(found[1]), int(found[2] or found[1])
    if last < first:
        raise UsageError(f"--seeds {text}: {last} is before {first}")
    return range(first, last + 1)


@contextmanager
def _log_file(path: str | None) -> Iterator[TextIO | None]:
    if path is None:
        yield None
        return
    try:
        file = open(path, "w", encoding="utf-8")  # noqa: SIM115  # only opening may fail so
    except OSError as error:
        raise UsageError(f"cannot write the log {path}: {error.strerror}") from error
    with file:
        yield file


def _show_failure(failure: SimulationFailed, options: Options) -> None:
    replay = ["pie", "sim", "--seeds", str(failure.seed), "--scenario", options.scenario]
    if options.threads:
        replay.append("--threads")
    sys.stderr.write(
        f"{failure.tail}"
        f"pie: seed {failure.seed} of scenario {failure.scenario} failed: {failure.reason}\n"
        f"pie: event log {failure.digest}; replay it with: {shlex.join(replay)}\n"
    )


def _show(summary: Summary) -> None:
    typer.echo(
        f"{summary.seeds} seeds of {summary.scenario} in {summary.real_seconds:.1f} s, "
        f"{len(summary.failures)} failed: {summary.guests} guests, {summary.passes} passes, "
        f"{summary.events} events, {summary.virtual_seconds / 3600:.2f} hours of their time"
    )
    for what, count in sorted(summary.reached.items()):
        typer.echo(f"{count:8} {what}")
