"""What a seed decides: one machine, and the guests with all that happens to them."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import attrs

from .machine import Machine
from .programs import PROGRAMS, Params, SimProgram
from .scenario import Range, Scenario

AMPLE = 600
"""Host pages without a practical limit."""
INSTANCE_SEEDS = 3
"""Few, so that what a program gives alone can be remembered."""


@attrs.frozen(kw_only=True)
class GuestPlan:
    """One guest and its client."""

    number: int
    program: SimProgram
    params: Params = attrs.field(eq=False)
    user: str
    seed: int
    arrives_at: float
    messages: tuple[tuple[float, str], ...]
    """(seconds to wait, text)"""
    killed_after: float | None
    """Seconds after its launch."""
    reads_every: float
    """Seconds that the client takes for each item."""

    @property
    def arguments(self) -> tuple[str, ...]:
        return self.program.arguments(self.params)


@attrs.frozen(kw_only=True)
class Plan:
    """One run."""

    scenario: Scenario
    seed: int
    machine: Machine
    guests: tuple[GuestPlan, ...]
    shut_down_at: float | None

    @property
    def users(self) -> list[str]:
        return sorted({guest.user for guest in self.guests})


def make_plan(scenario: Scenario, seed: int, *, pace: float = 1.0) -> Plan:
    """The run that `seed` makes of `scenario`; times of clients are multiplied by `pace`."""
    random = Random(f"{scenario.name} {seed}")
    machine = _machine(scenario, random, seed)
    users = _whole(random, scenario.users)
    spread = _real(random, scenario.arrival_seconds)
    guests = tuple(
        _guest(scenario, machine, number, random, users, spread, pace)
        for number in range(_whole(random, scenario.guests))
    )
    shut_down = random.random() < scenario.shut_down
    shut_down_at = random.uniform(0, spread + 1) * pace if shut_down else None
    return Plan(
        scenario=scenario, seed=seed, machine=machine, guests=guests, shut_down_at=shut_down_at
    )


def _whole(random: Random, range_: Range) -> int:
    return random.randint(*range_.whole)


def _real(random: Random, range_: Range) -> float:
    return random.uniform(range_.least, range_.most)


_MULTI_STEPS = (1, 3, 64)
"""Devices that make single steps, a few and many in one call."""


def _machine(scenario: Scenario, random: Random, seed: int) -> Machine:
    faulty = random.random() < scenario.faulty
    host_pages = _whole(random, scenario.host_pages)
    return Machine(
        pages=_whole(random, scenario.pages),
        page_size=_whole(random, scenario.page_size),
        host_pages=AMPLE if random.random() < scenario.ample_host else host_pages,
        embedding_slots=_whole(random, scenario.embedding_slots),
        adapter_slots=_whole(random, scenario.adapter_slots),
        step_tokens=_whole(random, scenario.step_tokens),
        ageing_seconds=_real(random, scenario.ageing_seconds),
        max_passes_in_flight=_whole(random, scenario.max_passes_in_flight),
        step_seconds=_real(random, scenario.step_seconds),
        row_seconds=_real(random, scenario.row_seconds),
        jitter=_real(random, scenario.jitter),
        disk=random.random() < scenario.disk,
        lost=scenario.lost if faulty else 0.0,
        lost_calls=scenario.lost_calls if faulty else 0.0,
        disk_full=scenario.disk_full if faulty else 0.0,
        slow_files=scenario.slow_files if faulty else 0.0,
        slow=scenario.slow if faulty else 0.0,
        not_finite=scenario.not_finite if faulty else 0.0,
        multi_steps=_MULTI_STEPS[seed % len(_MULTI_STEPS)],
    )


def _guest(
    scenario: Scenario,
    machine: Machine,
    number: int,
    random: Random,
    users: int,
    spread: float,
    pace: float,
) -> GuestPlan:
    names: Sequence[str] = list(scenario.programs)
    weights = [scenario.programs[name] for name in names]
    program = PROGRAMS[random.choices(names, weights)[0]]
    params = program.draw(random, machine)
    texts = program.messages(random, params)
    killed = random.random() < scenario.killed or program.endless
    slow = random.random() < scenario.slow_client
    return GuestPlan(
        number=number,
        program=program,
        params=params,
        user=f"user {random.randrange(users)}",
        seed=random.randrange(INSTANCE_SEEDS),
        arrives_at=random.choice([0, random.uniform(0, spread)]) * pace,
        messages=tuple((random.choice([0, random.uniform(0, 0.3)]) * pace, t) for t in texts),
        killed_after=random.choice([0, random.uniform(0, 0.6)]) * pace if killed else None,
        reads_every=random.uniform(0, 0.01) * pace if slow else 0.0,
    )
