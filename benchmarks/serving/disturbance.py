"""One busy neighbour on the same cores, and how late our loop gets beside 64 guests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from .contenders import BareLoop, Contender, Pie, Row, Unsupported
from .plan import Plan, prompts
from .turns import Figures, Say, awake, take_turns

STREAMS = 8
_NUMBERS = 4000


@contextmanager
def busy_neighbour() -> Iterator[None]:
    """A process that computes without end, with as much right to the cores as we have."""
    process = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield
    finally:
        process.kill()
        process.communicate()


def neighbour(contenders: Sequence[Contender], plan: Plan, say: Say) -> Figures:
    """Tokens per second of eight streams, alone and beside the neighbour, in turns."""

    def measured(contender: Contender, number: int) -> Row:
        if isinstance(contender, BareLoop):
            raise Unsupported("nobody uses it alone")
        row = {}
        for offset, kind in enumerate(("alone", "beside")):
            batch = prompts().batch(STREAMS, _NUMBERS + 2 * number + offset)
            with busy_neighbour() if kind == "beside" else nullcontext():
                seconds = contender.batch(batch, plan.neighbour_tokens)
            row[kind] = STREAMS * plan.neighbour_tokens / seconds
        share = row["beside"] / row["alone"]
        say(f"busy neighbour, round {number + 1}: {contender.name} {share:.0%}")
        return row

    return take_turns(contenders, plan.neighbour_rounds, measured, say)


def latency(pie: Pie, plan: Plan) -> Row:
    """How late our loop runs a task while as many guests decode as the plan says."""
    batch = prompts().batch(plan.latency_guests, _NUMBERS)
    with awake(pie):
        return {"guests": plan.latency_guests, **pie.ask("latency", batch, plan.latency_tokens)}
