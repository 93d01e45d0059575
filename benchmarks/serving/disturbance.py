"""One busy neighbour on the same cores, and how late our loop gets beside 64 guests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .cases import Say, awake, in_turns
from .contenders import Contender, Pie, Row
from .plan import Plan, prompts

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


def neighbour(contenders: Sequence[Contender], plan: Plan, say: Say) -> dict[str, Row]:
    """Tokens per second of eight streams, alone and beside the neighbour, in turns."""
    rows: dict[str, Row] = {each.name: {"alone": [], "beside": []} for each in contenders}
    for number in range(plan.rounds):
        for contender in in_turns(contenders, number):
            for kind in ("alone", "beside"):
                mark = _NUMBERS + 2 * number + (kind == "beside")
                batch = prompts().batch(STREAMS, mark)
                with awake(contender):
                    if kind == "beside":
                        with busy_neighbour():
                            seconds = contender.batch(batch, plan.batch_tokens)
                    else:
                        seconds = contender.batch(batch, plan.batch_tokens)
                rows[contender.name][kind].append(STREAMS * plan.batch_tokens / seconds)
            row = rows[contender.name]
            share = row["beside"][-1] / row["alone"][-1]
            say(f"busy neighbour, round {number + 1}: {contender.name} {share:.0%}")
    return rows


def latency(pie: Pie, plan: Plan) -> Row:
    """How late our loop runs a task while as many guests decode as the plan says."""
    batch = prompts().batch(plan.latency_guests, _NUMBERS)
    with awake(pie):
        return {"guests": plan.latency_guests, **pie.ask("latency", batch, plan.latency_tokens)}
