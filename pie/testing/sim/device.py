"""A device that fails as a seed decides."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeVar

import attrs
import trio

from pie.actors.executor import Device
from pie.batch import Batch, BatchResult, ModelRunner
from pie.errors import PassFailed
from pie.multistep import MultiStep, step_by_step

from .machine import Machine

T = TypeVar("T")

FAULT = "a simulated fault"


@attrs.define(eq=False)
class FaultyDevice:
    """Loses batches before or after they have run, takes its time, gives logits that are none."""

    device: Device
    machine: Machine
    random: Random
    reach: Callable[[str], None]

    @property
    def runner(self) -> ModelRunner:
        return self.device.runner

    async def run(self, batch: Batch) -> BatchResult:
        machine = self.machine
        if self._happens(machine.slow):
            self.reach("a slow batch")
            await trio.sleep(20 * machine.step_seconds)
        lost = self._happens(machine.lost)
        if lost and self._happens(0.5):
            await trio.sleep(machine.step_seconds)
            raise PassFailed(f"{FAULT}: the batch was lost")
        result = await self.device.run(batch)
        if lost:
            raise PassFailed(f"{FAULT}: the answer was lost")
        if self._happens(machine.not_finite) and len(result.tokens):
            self.reach("logits that are not finite")
            finite = result.sampled_finite.copy()
            finite[self.random.randrange(len(finite))] = False
            return attrs.evolve(result, sampled_finite=finite)
        return result

    async def run_steps(self, steps: MultiStep) -> None:
        await step_by_step(self.run, steps)

    async def apply(self, method: Callable[..., T], /, *arguments: object) -> T:
        lost = self.machine.lost_calls and self._happens(self.machine.lost_calls)
        if lost and self._happens(0.5):
            raise PassFailed(f"{FAULT}: the call was lost")
        result = await self.device.apply(method, *arguments)
        if lost:
            raise PassFailed(f"{FAULT}: what the call gave was lost")
        return result

    def _happens(self, probability: float) -> bool:
        return self.random.random() < probability
