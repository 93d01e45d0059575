"""The programmability tax: a step through the engine and its guests against the bare loop."""

from __future__ import annotations

import statistics

from .cases import Say, awake
from .contenders import Pie, Row
from .plan import Plan, prompts
from .serving import BARE, PYTHON, SAMPLING, C

GUESTS = (BARE, C, PYTHON, SAMPLING)
_NUMBERS = 5000


def measure(pie: Pie, plan: Plan, say: Say) -> dict[str, dict[str, list[Row]]]:
    """Streams -> who decodes -> the pace of each round, in turns on the same prompts."""
    found: dict[str, dict[str, list[Row]]] = {}
    with awake(pie):
        pie.ask("forget")
        for streams in plan.tax_streams:
            rows: dict[str, list[Row]] = {guest: [] for guest in GUESTS}
            for number in range(plan.rounds):
                batch = prompts().batch(streams, _NUMBERS + number)
                for guest in GUESTS[:: -1 if number % 2 else 1]:
                    answer = pie.ask("many", guest, batch, plan.tax_tokens)
                    if answer["pace"] is None:
                        raise RuntimeError(f"{guest}: never all {streams} streams in a step")
                    rows[guest].append(answer["pace"])
            found[str(streams)] = rows
            taxes = {guest: f"{tax(rows, guest):+.1%}" for guest in GUESTS[1:]}
            say(f"tax at {streams} streams: {taxes}")
    return found


def period(rows: dict[str, list[Row]], guest: str) -> float:
    """Seconds from step to step."""
    return float(statistics.median(row["period"] for row in rows[guest]))


def tax(rows: dict[str, list[Row]], guest: str) -> float:
    """The median over the rounds of how much longer a step takes than in the bare loop."""
    pairs = zip(rows[guest], rows[BARE], strict=True)
    return float(statistics.median(row["period"] / bare["period"] for row, bare in pairs) - 1)
