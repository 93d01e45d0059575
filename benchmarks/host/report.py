"""The results as tables for people."""

from __future__ import annotations

import statistics

import attrs
from rich.console import Console
from rich.table import Table

from .goals import Results, judged
from .machine import Row
from .tokens import growth


@attrs.frozen
class Column:
    """A heading, and the figures below it as the form they fill."""

    heading: str
    form: str


DECODING = (
    Column("µs/token", "{us_per_token:.1f}"),
    Column("main", "{us_per_token_main_thread:.1f}"),
    Column("hops", "{hops:.1f}"),
    Column("tok/s of a core", "{tokens_per_cpu_second:,.0f}"),
    Column("mean batch", "{mean_batch:.1f}"),
    Column("own latency p50 95 99 max ms", "{own_latency}"),
    Column("as measured", "{latency}"),
    Column("core got", "{core_share:.0%}"),
    Column("gc, longest ms", "{gc_share:.0%} {gc_longest_ms:.0f}"),
    Column("launch, end µs", "{launch_us_per_guest:.0f} {end_us_per_guest:.0f}"),
)
COLD = (
    Column("compile and load ms", "{compile_ms:.0f}"),
    Column("from the cache ms", "{cached_ms:.1f}"),
    Column("component MiB", "{component_mib:.2f}"),
)
WARM = (
    Column(
        "to the first call ms: median, p95", "{first_call_ms_median:.2f}, {first_call_ms_p95:.2f}"
    ),
    Column(
        "to the end ms: median, p95", "{terminal_event_ms_median:.2f}, {terminal_event_ms_p95:.2f}"
    ),
    Column("µs of processor time", "{cpu_us:.0f}"),
)
BULK = (
    Column("guests", "{guests}"),
    Column("launches/s", "{launches_per_second:,.0f}"),
    Column("all ended after ms", "{all_ended_ms:.0f}"),
    Column(
        "to the first call ms: median, p95", "{first_call_ms_median:.0f}, {first_call_ms_p95:.0f}"
    ),
    Column("µs of processor time", "{cpu_us:.0f}"),
)
MEMORY = (
    Column("KiB/guest", "{kib_per_guest:.1f}"),
    Column("PSS KiB/guest", "{pss_kib_per_guest:.1f}"),
    Column("mappings/guest", "{mappings_per_guest:.2f}"),
    Column("left KiB/guest", "{left_kib_per_guest:.1f}"),
)
PLANNER = (
    Column("submit", "{submit_us:.2f}"),
    Column("plan", "{plan_us:.2f}"),
    Column("pack", "{pack_us:.2f}"),
    Column("settle", "{settle_us:.2f}"),
    Column("µs/request in all", "{total_us:.2f}"),
)
TABLES = (
    ("tokens/", "Decoding, steady state", DECODING),
    ("context/", "Decoding after so much context, 64 WAT guests", DECODING),
    ("launch/cold/", "Loading a component", COLD),
    ("launch/warm/", "Launching an empty guest, one at a time", WARM),
    ("launch/bulk/", "Launching empty guests at once", BULK),
    ("memory/", "Idle guests", MEMORY),
    ("planner/", "Planner and queue, µs of processor time per request", PLANNER),
)


def show(results: Results, console: Console) -> None:
    """Print a table for each part that was measured, and the goals."""
    _show_machine(results, console)
    for prefix, title, columns in TABLES:
        rows = {
            name[len(prefix) :]: row for name, row in results.items() if name.startswith(prefix)
        }
        if rows:
            console.print(_table(title, columns, rows))
            _show_missing(rows, console)
    _show_growth(results, console)
    for name, row in results.items():
        if "layers" in row:
            console.print(_layers(name, row))
    _show_goals(results, console)


def speed(results: Results) -> Row:
    """The median of each unit over all cases, with its extremes."""
    found: Row = {}
    for unit in ("hop_us", "loop_us"):
        values = [row[unit] for row in results.values() if unit in row]
        if values:
            found[unit] = statistics.median(values)
            found[f"{unit}_range"] = [min(values), max(values)]
    return found


def _show_machine(results: Results, console: Console) -> None:
    units = speed(results)
    if units:
        console.print(
            "units of this machine's speed, median (range) over the cases: "
            f"one mailbox hop {_range(units, 'hop_us')}, one turn of the fixed loop "
            f"{_range(units, 'loop_us')}"
        )
    policies = sorted({row["gc"] for row in results.values() if "gc" in row})
    if policies:
        console.print(f"garbage collector, as in `pie run`: {'; '.join(policies)}")


def _range(units: Row, unit: str) -> str:
    low, high = units[f"{unit}_range"]
    return f"{units[unit]:.3g} µs ({low:.3g} to {high:.3g})"


def _table(title: str, columns: tuple[Column, ...], rows: dict[str, Row]) -> Table:
    table = Table("", *(column.heading for column in columns), title=title, title_justify="left")
    for name, row in rows.items():
        if "skipped" in row or "failed" in row:
            table.add_row(name, "see below")
        else:
            facts = {**row, **_derived(row)}
            table.add_row(name, *(column.form.format_map(facts) for column in columns))
    return table


def _show_missing(rows: dict[str, Row], console: Console) -> None:
    for name, row in rows.items():
        if "skipped" in row:
            console.print(f"{name}: not measured: {row['skipped']}")
        elif "failed" in row:
            console.print(f"{name}: FAILED: {row['failed']}", style="red")
        elif row.get("started_share", 1) < 1:
            waiting = f"{1 - row['started_share']:.1%}"
            console.print(f"{name}: {waiting} of the guests had no token when the first one ended")


def _derived(row: Row) -> Row:
    if "us_per_token" not in row:
        return {}
    return {
        "hops": row["us_per_token"] / row["hop_us"],
        **{name: _latency(row, name) for name in ("latency", "own_latency")},
    }


def _latency(row: Row, name: str) -> str:
    late = [row.get(f"{name}_ms_{share}") for share in ("p50", "p95", "p99", "max")]
    return " ".join("-" if value is None else f"{value:.3g}" for value in late)


def _show_growth(results: Results, console: Console) -> None:
    rows = {
        int(name.removeprefix("context/")): row
        for name, row in results.items()
        if name.startswith("context/") and "us_per_token" in row
    }
    if len(rows) > 1:
        console.print(f"1,000 more tokens of context cost {growth(rows):.1f} µs per token")


def _layers(name: str, row: Row) -> Table:
    title = f"{name}: {row['us_per_token']:.1f} µs/token by layer ({row['samples']} samples)"
    table = Table("layer", "share", "µs/token", title=title, title_justify="left")
    for layer, share in row["layers"].items():
        table.add_row(layer, f"{share:.1%}", f"{share * row['us_per_token']:.1f}")
    return table


def _show_goals(results: Results, console: Console) -> None:
    goals = judged(results)
    measured = [goal for goal in goals if goal["value"] is not None]
    if measured:
        console.print(_goals(measured))
    if len(measured) < len(goals):
        console.print(f"{len(goals) - len(measured)} of {len(goals)} goals were not measured")


def _goals(goals: list[Row]) -> Table:
    table = Table("goal", "limit", "measured", "", title="Goals", title_justify="left")
    for goal in goals:
        measured = f"{_number(goal['value'])} {goal['unit']}"
        limit = f"{goal['relation']} {_number(goal['limit'])} {goal['unit']}"
        table.add_row(goal["goal"], limit, measured, "met" if goal["met"] else "not met")
    return table


def _number(value: float) -> str:
    return f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"
