"""Components of the simulation, written as text: preempted by fuel, they may spin."""

from __future__ import annotations

from random import Random

from pie.ids import EventCode
from pie.testing.sim.machine import Machine

from .program import Params, SimProgram, up_to

WANDERER = "wanderer.wat"


def _draw(random: Random, machine: Machine, end: str) -> Params:
    return {
        "tokens": up_to(random, min(12, machine.slots // 6)),
        "burst": random.randint(1, 3),
        "spins": random.choice([0, 0, 1, 30]),
        "end": end,
    }


def _arguments(params: Params) -> tuple[str, ...]:
    return tuple(str(params[key]) for key in ("tokens", "burst", "spins", "end"))


def _wanderer(
    name: str, *ends: str, event: EventCode | None = None, endless: bool = False
) -> SimProgram:
    def draw(random: Random, machine: Machine) -> Params:
        return _draw(random, machine, random.choice(ends))

    return SimProgram(
        name=name,
        component=WANDERER,
        draw=draw,
        arguments=_arguments,
        ends=event,
        independent=not endless,
        endless=endless,
    )


WASM = [
    _wanderer("wander", "return"),
    _wanderer("wander-and-trap", "trap", "pointer", event=EventCode.EXCEPTION),
    _wanderer("wander-and-spin", "spin", event=EventCode.ABORTED, endless=True),
]
