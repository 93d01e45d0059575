"""What can go wrong on a simulated accelerator, and when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import TypeAlias

import attrs


@attrs.frozen
class SlowBatch:
    """The step takes `factor` times as long and is right."""

    factor: float = attrs.field(validator=attrs.validators.gt(0))


@attrs.frozen
class LostBatch:
    """The step takes its time and gives no result (contract F7).

    `written`: whether it had written KV pages and slots before it was lost. Both happen.
    """

    reason: str = "the device lost the batch"
    written: bool = False


@attrs.frozen
class MemoryFault:
    """The device has no memory for the step and says so at once (contract F7)."""

    reason: str = "out of device memory"


@attrs.frozen
class Crash:
    """The device breaks in a way that nobody has provided for: a `DeviceCrash`."""

    reason: str = "the device fell off the bus"


@attrs.frozen
class Hang:
    """The device is at it for `seconds`, whoever gives up on it meanwhile, as a thread would be.

    It takes nothing else before that; then the step is right.
    """

    seconds: float = attrs.field(validator=attrs.validators.gt(0))


Fault: TypeAlias = SlowBatch | LostBatch | MemoryFault | Crash | Hang

FaultPlan: TypeAlias = Callable[[int], Fault | None]
"""The fault of the step with this number, counted from 0."""


class DeviceCrash(Exception):
    """Not a PieError: out of a device it stops the engine, whose state is no longer trusted."""


def never(_: int) -> None:
    """The plan of a machine that does not fail."""


def as_plan(faults: FaultPlan | Mapping[int, Fault]) -> FaultPlan:
    """A plan, also of step number -> fault."""
    if not isinstance(faults, Mapping):
        return faults
    by_step = dict(faults)
    return lambda step: by_step.get(step)


def random_faults(probability: float, *faults: Fault, seed: int = 0) -> FaultPlan:
    """A plan by which each step has one of `faults` with `probability`, by `seed`.

    What a step gets depends on nothing but its number. ValueError for a probability outside of
    0 to 1, or without faults.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"a probability is from 0 to 1, not {probability}")
    if not faults:
        raise ValueError("random faults of no kind")

    def plan(step: int) -> Fault | None:
        random = Random(f"{seed} {step}")
        return random.choice(faults) if random.random() < probability else None

    return plan
