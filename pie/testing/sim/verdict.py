"""Whether each guest ended as it should: as it does alone, or for a reason that is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
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
from .plan import AMPLE, GuestPlan, Plan
from .running import SHUT_DOWN, Run

ProgramOf: TypeAlias = Callable[[GuestPlan], GuestProgram]

FAILED = re.compile("fault|not finite|failed|is gone")
"""What the reason of an end that a failing device has caused says."""


def judge(run: Run, program: ProgramOf) -> None:
    """Assert that every guest of a run has ended as it should. Not inside Trio."""
    for guest in run.plan.guests:
        outcome = run.outcomes.get(guest.number)
        if outcome is not None and not _excused(guest, run.plan, outcome):
            _compare(guest, run.plan, outcome, program)


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


def _compare(guest: GuestPlan, plan: Plan, outcome: Outcome, program: ProgramOf) -> None:
    what, event = f"guest {guest.number} ({guest.program.name})", outcome.event
    assert event.code is not EventCode.SERVER_ERROR, f"{what} met a bug: {event.text}"
    wanted = guest.program.ends
    if wanted is not None:
        assert event.code is wanted, f"{what} ended with {event}, not with {wanted.name}"
    if guest.program.independent:
        alone = _alone(_Alone(guest, plan.machine.page_size, plan.machine.adapter_slots), program)
        assert outcome == alone, f"{what} gave {outcome} in the crowd and {alone} alone"
    elif wanted is None:
        assert event.code is EventCode.COMPLETED, f"{what} ended with {event}"


@attrs.frozen(eq=False)
class _Alone:
    """A guest on a machine of its own, known by what decides its results."""

    guest: GuestPlan
    page_size: int
    adapter_slots: int

    def _key(self) -> tuple[object, ...]:
        guest = self.guest
        texts = tuple(text for _, text in guest.messages)
        return guest.program.name, guest.arguments, guest.seed, texts, self.page_size

    def __hash__(self) -> int:
        return hash(self._key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Alone) and self._key() == other._key()


@lru_cache(maxsize=20_000)
def _alone(case: _Alone, program: ProgramOf) -> Outcome:
    return run_simulated(_run_alone, case, program, seed=0)


async def _run_alone(case: _Alone, program: ProgramOf) -> Outcome:
    guest = case.guest
    gpu = SimulatedGpu(HashModel(page_size=case.page_size, pages=1024))
    async with simulated_engine(gpu) as engine:
        launched = await engine.launch(
            program(guest), guest.arguments, user=guest.user, seed=guest.seed
        )
        plan = attrs.evolve(guest, killed_after=None, reads_every=0.0)
        client = Client(plan, engine, launched, Journal())
        with trio.fail_after(10_000):
            await client.run()
    return client.outcome()
