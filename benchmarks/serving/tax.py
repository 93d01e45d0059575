"""The programmability tax: a step through the engine and its guests against the bare loop."""

from __future__ import annotations

import statistics

from .contenders import Pie, Row
from .plan import Plan, prompts
from .serving import BARE, PYTHON, SAMPLING, STEPS, C
from .turns import Figures, Say, awake

GUESTS = (BARE, C, PYTHON, STEPS, SAMPLING)
_NUMBERS = 5000
_OTHERS, _TRIES = 100, 4
"""How far apart the prompts of two attempts are, and how many there are."""
_PROMPT = 15
"""Tokens of each prompt: those of 32 streams fit into one step, so that all begin together."""


def measure(pie: Pie, plan: Plan, say: Say) -> Figures:
    """Streams -> who decodes -> the pace of each round, in turns on the same prompts.

    For how many streams there is none stands among what failed.
    """
    figures = Figures()
    with awake(pie):
        pie.ask("forget")
        for streams in plan.tax_streams:
            try:
                rows = figures.found[str(streams)] = _paces(pie, plan, streams)
            except ValueError as error:
                figures.failed[f"{streams} streams"] = str(error)
                say(f"tax at {streams} streams FAILED: {error}")
            else:
                taxes = {guest: f"{tax(rows, guest):+.1%}" for guest in GUESTS[1:]}
                say(f"tax at {streams} streams: {taxes}")
    return figures


def _paces(pie: Pie, plan: Plan, streams: int) -> dict[str, list[Row]]:
    """ValueError if some guests are never all in one step."""
    rows: dict[str, list[Row]] = {guest: [] for guest in GUESTS}
    for number in range(plan.rounds):
        for guest, pace in _round(pie, plan, streams, number).items():
            rows[guest].append(pace)
    return rows


def _round(pie: Pie, plan: Plan, streams: int, number: int) -> dict[str, Row]:
    """Everybody's pace on the same prompts: on others, if slow guests settle into two groups that
    take turns.
    """
    for attempt in range(_TRIES):
        some = prompts().batch(streams, _NUMBERS + number + _OTHERS * attempt)
        batch = [prompt[:_PROMPT] for prompt in some]
        order = GUESTS[:: -1 if number % 2 else 1]
        paces = {guest: pie.ask("many", guest, batch, plan.tax_tokens)["pace"] for guest in order}
        late = [guest for guest, pace in paces.items() if pace is None]
        if not late:
            return paces
    raise ValueError(f"{', '.join(late)} guests: not all {streams} were in a step")


def period(rows: dict[str, list[Row]], guest: str) -> float:
    """Seconds from step to step."""
    return float(statistics.median(row["period"] for row in rows[guest]))


def between(rows: dict[str, list[Row]], guest: str) -> float:
    """Seconds from step to step in which the model has nothing to do."""
    return float(statistics.median(row["period"] - row["step"] for row in rows[guest]))


def tax(rows: dict[str, list[Row]], guest: str) -> float:
    """The median over the rounds of how much longer a step takes than in the bare loop."""
    pairs = zip(rows[guest], rows[BARE], strict=True)
    return float(statistics.median(row["period"] / bare["period"] for row, bare in pairs) - 1)
