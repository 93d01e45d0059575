"""The results as tables for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from .clients import percentile
from .measure import UNDISTURBED, Row

GOAL = 2.0
"""Times the undisturbed p99 that ordinary clients may feel beside a hostile one."""
HELD_TO_IT = ("deaf", "garbage", "uploads", "silent", "crowding")


def felt(rows: dict[str, Row]) -> dict[str, Row]:
    """Percentiles of the time between tokens, in ms, and what they are of the undisturbed ones."""
    figures = {kind: _percentiles(row) for kind, row in rows.items()}
    calm = figures[UNDISTURBED]
    for row in figures.values():
        row["p50_ratio"] = row["p50_ms"] / calm["p50_ms"]
        row["p99_ratio"] = row["p99_ms"] / calm["p99_ms"]
    return figures


def _percentiles(row: Row) -> Row:
    gaps = row["gaps"]
    shares = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}
    return {
        "tokens": len(gaps),
        **{name: percentile(gaps, share) * 1e3 for name, share in shares.items()},
        "server_core_share": row["server_core_share"],
    }


def show(results: dict[str, dict[str, Any]], console: Console) -> None:
    """Print a table for each part that was measured."""
    if "felt" in results:
        console.print(_felt(results["felt"]))
    if "deliveries" in results:
        console.print(_deliveries(results["deliveries"]))
        for name, row in results["deliveries"].items():
            if "layers" in row:
                console.print(_layers(name, row))


def _felt(rows: dict[str, Row]) -> Table:
    table = Table(
        *("beside", "p50 ms", "p99 ms", "max ms", "p50 ×", "p99 ×", "goal", "server's core"),
        title="Time between two tokens, as ordinary clients saw it",
        title_justify="left",
    )
    for kind, row in rows.items():
        goal = ""
        if kind in HELD_TO_IT:
            goal = "met" if row["p99_ratio"] <= GOAL else "not met"
        table.add_row(
            kind,
            *(f"{row[name]:.1f}" for name in ("p50_ms", "p99_ms", "max_ms")),
            *(f"{row[name]:.2f}" for name in ("p50_ratio", "p99_ratio")),
            goal,
            f"{row['server_core_share']:.0%}",
        )
    return table


def _deliveries(rows: dict[str, Row]) -> Table:
    table = Table(
        *("", "messages/s", "µs of processor per message", "server's core"),
        title="Messages of one letter, from inferlets that do nothing but send them",
        title_justify="left",
    )
    for name, row in rows.items():
        table.add_row(
            name,
            f"{row['messages_per_second']:,.0f}",
            f"{row['us_per_message']:.1f}",
            f"{row['server_core_share']:.0%}",
        )
    return table


def _layers(name: str, row: Row) -> Table:
    total = sum(row["layers"].values())
    table = Table("layer", "share", "µs/message", title=name, title_justify="left")
    for layer, seconds in sorted(row["layers"].items(), key=lambda item: -item[1]):
        share = seconds / total
        table.add_row(layer, f"{share:.1%}", f"{share * row['us_per_message']:.1f}")
    return table
