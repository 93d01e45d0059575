"""Whether each guest ended as it should: as it does alone, or for a reason that is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import attrs
import trio

from pie.engine import GuestProgram
from pie.ids import EventCode
from pie.testing.determinism import run_simulated
from pie.testing.engine import Outcome, simulated_engine
from pie.testing.gpu import SimulatedGpu
from pie.testing.hashing import HashModel

from .client import KILLED, Client
from .journal import Journal
from .machine import Machine
from .plan import AMPLE, GuestPlan, Plan
from .running import SHUT_DOWN, Run

ProgramOf: TypeAlias = Callable[[GuestPlan], GuestProgram]

FAILED = re.compile("fault|not finite|failed|is gone|cannot be repeated")
"""What the reason of an end that a failing device has caused says."""


@attrs.define(eq=False)
class Solo:
    """What guests give on a machine of their own; the same guest is run once."""

    _known: dict[tuple[object, ...], Outcome] = attrs.field(factory=dict)

    def outcome(self, guest: GuestPlan, machine: Machine, program: ProgramOf) -> Outcome:
        texts = tuple(text for _, text in guest.messages)
        key = guest.program.name, guest.arguments, guest.seed, texts, machine.page_size
        if key not in self._known:
            self._known[key] = run_simulated(_alone, guest, machine, program, seed=0)
        return self._known[key]


async def _alone(guest: GuestPlan, machine: Machine, program: ProgramOf) -> Outcome:
    gpu = SimulatedGpu(HashModel(page_size=machine.page_size, pages=1024))
    async with simulated_engine(gpu) as engine:
        launched = await engine.launch(
            program(guest), guest.arguments, user=guest.user, seed=guest.seed
        )
        plan = attrs.evolve(guest, killed_after=None, reads_every=0.0)
        client = Client(plan, engine, launched, Journal())
        with trio.fail_after(10_000):
            await client.run()
    return client.outcome()


def judge(run: Run, program: ProgramOf, solo: Solo) -> None:
    """Assert that every guest of a run has ended as it should. Not inside Trio."""
    for guest in run.plan.guests:
        outcome = run.outcomes.get(guest.number)
        if outcome is not None and not _excused(guest, run.plan, outcome):
            _compare(guest, outcome, partial(solo.outcome, guest, run.plan.machine, program))


def _excused(guest: GuestPlan, plan: Plan, outcome: Outcome) -> bool:
    """Whether it is known why it ended otherwise than alone."""
    code, text = outcome.event.code, outcome.event.text
    match code:
        case EventCode.ABORTED:
            killed = guest.killed_after is not None and text == KILLED
            return killed or (plan.shut_down_at is not None and text == SHUT_DOWN)
        case EventCode.OUT_OF_RESOURCES:
            return plan.machine.host_pages < AMPLE
        case EventCode.EXCEPTION:
            failed = plan.machine.faulty and FAILED.search(text) is not None
            return failed or bool(guest.program.excuse and guest.program.excuse in text)
    return False


def _compare(guest: GuestPlan, outcome: Outcome, alone: Callable[[], Outcome]) -> None:
    what, event = f"guest {guest.number} ({guest.program.name})", outcome.event
    assert event.code is not EventCode.SERVER_ERROR, f"{what} met a bug: {event.text}"
    wanted = guest.program.ends
    if wanted is not None:
        assert event.code is wanted, f"{what} ended with {event}, not with {wanted.name}"
    if guest.program.independent:
        expected = alone()
        assert outcome == expected, f"{what} gave {outcome} in the crowd and {expected} alone"
    elif wanted is None:
        assert event.code is EventCode.COMPLETED, f"{what} ended with {event}"
