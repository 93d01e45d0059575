"""The figures as Markdown, which people read in a terminal, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.scheduling.report import table

from .agents.jobs import TITLES
from .cases import CASES
from .contenders import BARE, OURS, Row
from .summary import found, judged, median, ratios, share, title_of
from .tax import GUESTS, between, period, tax


def markdown(report: Row) -> str:
    """All that was measured, a table for each group of parts, and why figures are missing."""
    tables = [
        _machine(report),
        _compared(report, "", tuple(CASES)),
        _tax(found(report, "tax")),
        _compared(report, "agents", tuple(TITLES)),
        _neighbour(report),
        _late(found(report, "latency")),
        _start(found(report, "startup")),
        _reasons(report["parts"], "failed", "**FAILED**"),
        _reasons(report["parts"], "left_out", "Not measured"),
        _goals(judged(report)),
    ]
    return "\n\n".join(text for text in tables if text)


def _machine(report: Row) -> str:
    facts, parts = report["machine"], report["parts"].values()
    loads = [part["load_before"] for part in parts]
    text = (
        f"{facts['processor']}, cores {facts['used_cores']} of {facts['cores']}, "
        f"{facts['memory_gib']} GiB; {', '.join(facts['features'])}; Python {facts['python']}"
    )
    if loads:
        minutes = sum(part["seconds"] for part in parts) / 60
        text += f"; load before {min(loads):.2f} to {max(loads):.2f}; {minutes:.0f} minutes"
    return text + ("; quick: figures mean little" if report["quick"] else "")


def _compared(report: Row, head: str, parts: Sequence[str]) -> str:
    """Cases or jobs, a column for each contender that was asked, whether or not it failed."""
    there = [part for part in parts if part in report["parts"]]
    names = _names([report["parts"][part] for part in there])
    rows = [
        [
            f"{title_of(part)}, {CASES[part].unit if part in CASES else 's'}",
            *(_cell(report["parts"][part], name) for name in names),
            *_ratios(ratios(report, part)),
        ]
        for part in there
    ]
    heads = [head, *names, "to the best peer", "to the bare loop"]
    note = "Median (least to most) of the rounds."
    return f"{table(heads, rows)}\n\n{note}" if rows else ""


def _names(parts: Sequence[Row]) -> list[str]:
    """Ours first, then the peers as they come."""
    seen = dict.fromkeys(name for part in parts for name in (*part["found"], *part["failed"]))
    ours = [name for name in (OURS, BARE) if name in seen]
    return [*ours, *(name for name in seen if name not in ours)]


def _cell(part: Row, name: str) -> str:
    return "**FAILED**" if name in part["failed"] else _spread(part["found"].get(name, ()))


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return f"{median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def _reasons(parts: Mapping[str, Row], kind: str, word: str) -> str:
    """A line for each contender and reason, with the parts that it is of."""
    lines: dict[tuple[str, str], list[str]] = {}
    for part, figures in parts.items():
        for who, reason in figures[kind].items():
            lines.setdefault((who, reason), []).append(part)
    return "\n".join(
        f"* {word}: {who} ({', '.join(where)}): {reason}" for (who, reason), where in lines.items()
    )


def _ratios(row: Row) -> list[str]:
    best = "–"
    if "ratio" in row:
        best = f"**{row['ratio']:.2f}** × {row['best']} ({row['low']:.2f} to {row['high']:.2f})"
    return [best, f"{row['of_bare']:.2f}" if "of_bare" in row else "–"]


def _tax(paces: Mapping[str, Mapping[str, list[Row]]]) -> str:
    if not paces:
        return ""
    titles = {
        "c": "C guests",
        "python": "our Python library",
        "c-steps": "C guests, each step theirs",
        "sampling": "sampling in Python",
    }
    heads = ["tax, ms from step to step", "bare loop", *(titles[guest] for guest in GUESTS[1:])]
    rows = []
    for streams, by_guest in paces.items():
        values = dict(by_guest)
        cells = [f"{period(values, GUESTS[0]) * 1e3:.2f}"]
        cells += [
            f"{period(values, guest) * 1e3:.2f} ({tax(values, guest):+.1%}; "
            f"{between(values, guest) * 1e3:.2f} of it between steps)"
            for guest in GUESTS[1:]
        ]
        rows.append([f"{streams} streams", *cells])
    return table(heads, rows)


def _neighbour(report: Row) -> str:
    part = report["parts"].get("neighbour")
    if part is None:
        return ""
    heads = ["8 streams, tok/s", "alone", "beside a busy process", "of it left"]
    rows = []
    for name in _names([part]):
        rounds = part["found"].get(name, [])
        if name in part["failed"]:
            rows.append([name, *["**FAILED**"] * 3])
        else:
            cells = [_spread([row[kind] for row in rounds]) for kind in ("alone", "beside")]
            rows.append([name, *cells, f"{share(rounds):.0%}"])
    return table(heads, rows)


def _late(row: Row) -> str:
    if not row:
        return ""
    return (
        f"Loop latency with {row['guests']} guests: p50 {row['latency_ms_p50']:.2g} ms, "
        f"p99 {row['latency_ms_p99']:.2g} ms (its own {row['own_latency_ms_p99']:.2g} ms)."
    )


def _start(row: Row) -> str:
    if not row:
        return ""
    return (
        f"`pie run` to the first text: {row['first_seconds']:.1f} s the very first time, then "
        f"{median(row['warm_seconds']):.2f} s; peak memory {row['peak_rss'] / 1e6:.0f} MB for "
        f"a file of {row['model_bytes'] / 1e6:.0f} MB "
        f"({row['peak_rss'] / row['model_bytes']:.1f} ×)."
    )


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
