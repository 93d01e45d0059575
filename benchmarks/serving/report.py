"""The figures as Markdown, which people read in a terminal, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.scheduling.report import table

from .contenders import BARE, OURS, Row
from .summary import median, share
from .tax import GUESTS, between, period, tax

_TITLES = {
    "decode": "decode, 1 stream, tok/s",
    "prefill": "prefill 512, tok/s",
    "seen": "first token, prompt seen before, ms",
    "prefix": "first token, 480 of 512 tokens seen, ms",
}


def markdown(report: Row) -> str:
    """All that was measured, a table for each part."""
    parts = [_machine(report)]
    if report.get("speed"):
        parts.append(_speed(report))
    if report.get("tax"):
        parts.append(_tax(report["tax"]))
    if report.get("agents"):
        parts.append(_agents(report))
    if report.get("neighbour"):
        parts.append(_neighbour(report["neighbour"]))
    parts += [_line(report), _goals(report["goals"])]
    return "\n\n".join(part for part in parts if part)


def _machine(report: Row) -> str:
    facts = report["machine"]
    return (
        f"{facts['processor']}, cores {facts['used_cores']} of {facts['cores']}, "
        f"{facts['memory_gib']} GiB; {', '.join(facts['features'])}; "
        f"Python {facts['python']}; load before: {facts['load_before']:.2f}"
    )


def _speed(report: Row) -> str:
    names = _names(report["speed"])
    heads = ["", *names, "to the best peer", "to the bare loop"]
    rows = []
    for case, values in report["speed"].items():
        scale = 1e3 if case in ("seen", "prefix") else 1.0
        title = _TITLES.get(case, f"{case.removeprefix('c')} at once, tok/s")
        cells = [_spread(values.get(name, ()), scale) for name in names]
        rows.append([title, *cells, *_ratios(report["ratios"].get(case, {}))])
    lines = [table(heads, rows), "", "Median (least to most) of the rounds."]
    for name, reason in {**report["missing"], **report["failed"]}.items():
        lines.append(f"Not measured: {name}: {reason}")
    return "\n".join(lines)


def _names(values: Mapping[str, Mapping[str, object]]) -> list[str]:
    """Ours first, then the peers as they come."""
    seen = dict.fromkeys(name for row in values.values() for name in row)
    ours = [name for name in (OURS, BARE) if name in seen]
    return [*ours, *(name for name in seen if name not in ours)]


def _spread(values: Sequence[float], scale: float = 1.0) -> str:
    if not values:
        return "–"
    low, high = min(values) * scale, max(values) * scale
    return f"{median(values) * scale:.3g} ({low:.3g} to {high:.3g})"


def _ratios(row: Row) -> list[str]:
    best = "–"
    if "ratio" in row:
        best = f"**{row['ratio']:.2f}** × {row['best']} ({row['low']:.2f} to {row['high']:.2f})"
    return [best, f"{row['of_bare']:.2f}" if "of_bare" in row else "–"]


def _tax(found: Mapping[str, Mapping[str, list[Row]]]) -> str:
    titles = {"c": "C guests", "python": "our Python library", "sampling": "sampling in Python"}
    heads = ["tax, ms from step to step", "bare loop", *(titles[guest] for guest in GUESTS[1:])]
    rows = []
    for streams, by_guest in found.items():
        values = dict(by_guest)
        cells = [f"{period(values, GUESTS[0]) * 1e3:.2f}"]
        cells += [
            f"{period(values, guest) * 1e3:.2f} ({tax(values, guest):+.1%}; "
            f"{between(values, guest) * 1e3:.2f} of it between steps)"
            for guest in GUESTS[1:]
        ]
        rows.append([f"{streams} streams", *cells])
    return table(heads, rows)


def _agents(report: Row) -> str:
    found = report["agents"]
    names = _names({job: row["seconds"] for job, row in found.items()})
    rows = []
    for job, row in found.items():
        cells = [
            row["failed"].get(name, "–")
            if name not in row["seconds"]
            else _spread(row["seconds"][name])
            for name in names
        ]
        rows.append([f"{row['title']}, s", *cells, _ratios(report["agent_ratios"].get(job, {}))[0]])
    return table(["agents", *names, "to the best client"], rows)


def _neighbour(rows: Mapping[str, Row]) -> str:
    heads = ["8 streams, tok/s", "alone", "beside a busy process", "of it left"]
    cells = [
        [name, _spread(row["alone"]), _spread(row["beside"]), f"{share(row):.0%}"]
        for name, row in rows.items()
    ]
    return table(heads, cells)


def _line(report: Row) -> str:
    lines = []
    if report.get("latency"):
        row = report["latency"]
        lines.append(
            f"Loop latency with {row['guests']} guests: p50 {row['latency_ms_p50']:.2g} ms, "
            f"p99 {row['latency_ms_p99']:.2g} ms (its own {row['own_latency_ms_p99']:.2g} ms)."
        )
    if report.get("startup"):
        row = report["startup"]
        lines.append(
            f"`pie run` to the first text: {row['first_seconds']:.1f} s the very first time, then "
            f"{median(row['warm_seconds']):.2f} s; peak memory {row['peak_rss'] / 1e6:.0f} MB for "
            f"a file of {row['model_bytes'] / 1e6:.0f} MB "
            f"({row['peak_rss'] / row['model_bytes']:.1f} ×)."
        )
    return "\n".join(lines)


def _goals(goals: Sequence[Row]) -> str:
    rows = [
        [
            goal["goal"],
            f"{goal['relation']} {goal['limit']:g} {goal['unit']}",
            f"{goal['value']:.3g} {goal['unit']}",
            "met" if goal["met"] else "not met",
        ]
        for goal in goals
        if goal["value"] is not None
    ]
    return table(["goal", "limit", "measured", ""], rows) if rows else ""
