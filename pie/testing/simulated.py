"""A simulated accelerator: `HashModel` that takes its time on Trio's clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import attrs
import trio

from pie.batch import Batch, BatchResult

from .hashing import HashModel

T = TypeVar("T")


@attrs.frozen
class StepRecord:
    """One batch that was run."""

    began: float
    passes: int
    rows: int


@attrs.define(eq=False)
class SimulatedModel:
    """A step takes `step_seconds + row_seconds * rows`, in virtual time under a virtual clock."""

    model: HashModel = attrs.field(factory=HashModel)
    step_seconds: float = 0.010
    row_seconds: float = 0.000_010
    steps: list[StepRecord] = attrs.field(factory=list)
    """Every batch so far, for tests to look at."""

    @property
    def runner(self) -> HashModel:
        return self.model

    async def run(self, batch: Batch) -> BatchResult:
        self.steps.append(StepRecord(trio.current_time(), batch.passes, batch.rows))
        await trio.sleep(self.step_seconds + self.row_seconds * batch.rows)
        return self.model.run(batch)

    async def apply(self, method: Callable[..., T], /, *arguments: object) -> T:
        await trio.lowlevel.checkpoint()
        return method(*arguments)
