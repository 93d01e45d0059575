"""`pie replay`: a trace once more, under other conditions, and what is different then."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table

from pie.errors import UsageError
from pie.testing.replay import Replayed, Setting, fitted, replay_under
from pie.trace.figures import Figures, figures, recorded
from pie.trace.reading import Record, read

MOST = 2
"""Settings that are compared at once."""

FILE_COLUMNS = 160
SHOWN = 3
"""Instances that could not go on, and are told of one by one."""

LABELS = {
    "seconds": ("seconds", "{:.3f}"),
    "passes": ("passes", "{:d}"),
    "tokens_per_second": ("tokens/s", "{:.1f}"),
    "inputs_per_second": ("inputs/s", "{:.1f}"),
    "token_p50_ms": ("token p50, ms", "{:.2f}"),
    "token_p99_ms": ("token p99, ms", "{:.2f}"),
    "pass_p50_ms": ("pass p50, ms", "{:.2f}"),
    "pass_p99_ms": ("pass p99, ms", "{:.2f}"),
    "fairness_instances": ("fairness, instances", "{:.3f}"),
    "fairness_users": ("fairness, users", "{:.3f}"),
    "batches": ("batches", "{:d}"),
    "rows_per_batch": ("rows a batch", "{:.1f}"),
    "passes_per_batch": ("passes a batch", "{:.1f}"),
    "busy": ("machine busy", "{:.1%}"),
    "failed": ("passes failed", "{:d}"),
}


@attrs.frozen(kw_only=True)
class Options:
    """What `pie replay` was asked to do; a list gives each setting its value."""

    file: Path
    settings: tuple[Setting, ...]
    json: bool


def settings_of(**options: Sequence[Any]) -> tuple[Setting, ...]:
    """One or two settings from options that were each given up to two times.

    An option given once is the same in both. UsageError if one is there more often.
    """
    for name, values in options.items():
        if len(values) > MOST:
            raise UsageError(f"--{name.replace('_', '-')} is there {len(values)} times, not {MOST}")
    count = max([1, *(len(values) for values in options.values())])
    return tuple(
        Setting(
            **{name: values[min(at, len(values) - 1)] for name, values in options.items() if values}
        )
        for at in range(count)
    )


def replay_command(options: Options) -> int:
    """Replay the file under each setting, print what is different; the exit code."""
    record = read(options.file)
    services, failed = recorded(record)
    if not services:
        raise UsageError(f"{options.file}: no pass was answered in this trace")
    was = figures(services, record.batches, failed)
    runs = [(setting, replay_under(record, setting)) for setting in options.settings]
    if options.json:
        _print_json(was, runs)
        return 0
    width = None if sys.stdout.isatty() else FILE_COLUMNS
    console = Console(highlight=False, width=width)
    for note in _notes(record, options, runs):
        sys.stderr.write(f"pie: {note}\n")
    console.print(_table(was, runs))
    return 0


def _notes(record: Record, options: Options, runs: Sequence[tuple[Setting, Replayed]]) -> list[str]:
    notes = []
    if not record.complete:
        notes.append(
            "the trace has no end: its run was killed, and what is missing is not replayed"
        )
    if any(setting.machine is None for setting in options.settings):
        for model in record.models:
            timing = fitted([batch for batch in record.batches if batch.model == model.model])
            notes.append(
                f"a step of {model.name} is taken as {_duration(timing.step)} "
                f"+ {_duration(timing.first_row)} a pass + {_duration(timing.row)} a further row "
                f"+ {_duration(timing.slot)} a KV slot, "
                f"from which the record deviates by {timing.error:.1%}"
            )
    for setting, run in runs:
        for instance, reason in list(run.given_up.items())[:SHOWN]:
            notes.append(f"{setting}: instance {instance} could not go on: {reason}")
        if len(run.given_up) > SHOWN:
            notes.append(f"{setting}: nor could {len(run.given_up) - SHOWN} others")
    return notes


def _duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _table(was: Figures, runs: Sequence[tuple[Setting, Replayed]]) -> Table:
    table = Table("", "recorded", *(str(setting) for setting, _ in runs))
    for setting in range(len(runs)):
        table.add_column(f"{setting + 1}/recorded" if len(runs) > 1 else "ratio")
    if len(runs) == MOST:
        table.add_column("2/1")
    for name, (label, form) in LABELS.items():
        values = [getattr(was, name), *(getattr(run.figures, name) for _, run in runs)]
        ratios = [_ratio(value, values[0]) for value in values[1:]]
        if len(runs) == MOST:
            ratios.append(_ratio(values[2], values[1]))
        table.add_row(label, *(form.format(value) for value in values), *ratios)
    return table


def _ratio(value: float, base: float) -> str:
    return f"{value / base:.3f}" if base else "-"


def _print_json(was: Figures, runs: Sequence[tuple[Setting, Replayed]]) -> None:
    report = {
        "recorded": attrs.asdict(was),
        "replayed": [
            {
                "setting": attrs.asdict(setting),
                "figures": attrs.asdict(run.figures),
                "given_up": run.given_up,
            }
            for setting, run in runs
        ],
    }
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
