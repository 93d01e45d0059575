"""A device that notes when each of its steps began and ended."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

import attrs
import numpy as np

from pie.actors.executor import Device
from pie.batch import Batch, BatchResult, ModelRunner
from pie.multistep import MultiStep

T = TypeVar("T")


@attrs.frozen
class Step:
    """One step, in seconds of `perf_counter`."""

    began: float
    ended: float
    passes: int
    rows: int


@attrs.define(eq=False)
class RecordingDevice:
    """A `Device` in front of another one; what the engine waits for it is in the steps."""

    device: Device
    steps: list[Step] = attrs.field(factory=list)

    @property
    def runner(self) -> ModelRunner:
        return self.device.runner

    async def run(self, batch: Batch) -> BatchResult:
        began = time.perf_counter()
        result = await self.device.run(batch)
        self._note(began, batch)
        return result

    async def run_steps(self, steps: MultiStep) -> None:
        began = time.perf_counter()
        await self.device.run_steps(steps)
        self._note(began, steps.batch, steps.done)

    async def apply(self, method: Callable[..., T], /, *arguments: object) -> T:
        return await self.device.apply(method, *arguments)

    def run_bare(self, batch: Batch) -> BatchResult:
        """A step of the runner, while the engine has nothing to do."""
        began = time.perf_counter()
        result = self.runner.run(batch)
        self._note(began, batch)
        return result

    def _note(self, began: float, batch: Batch, count: int = 1) -> None:
        """Each step of a call is noted with the same share of its time."""
        ends = np.linspace(began, time.perf_counter(), count + 1).tolist()
        self.steps += [Step(*times, batch.passes, batch.rows) for times in pairwise(ends)]

    def taken(self) -> list[Step]:
        """The steps since the last call."""
        steps, self.steps = self.steps, []
        return steps


def pace(steps: list[Step], streams: int) -> dict[str, float]:
    """Of decoding with all streams in each step: a step with what is around it, and alone.

    Seconds, means over neighbours: `period` from the beginning of a step to that of the next,
    `step` inside the model. No medians: what lies between two calls of several steps each comes
    once in so many, and is not to vanish. ValueError if there are no two such steps in a row.
    """
    pairs = [
        (one, next_one)
        for one, next_one in pairwise(steps)
        if {one.passes, one.rows, next_one.passes, next_one.rows} == {streams}
    ]
    if not pairs:
        raise ValueError(f"no two steps in a row had {streams} streams with a token each")
    return {
        "period": statistics.fmean(after.began - step.began for step, after in pairs),
        "step": statistics.fmean(step.ended - step.began for step, _ in pairs),
        "steps": len(pairs),
    }
