"""A simulated accelerator: a runner whose steps take their time on Trio's clock."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeVar

import attrs
import trio

from pie.batch import Batch, BatchResult, ModelRunner

from .hashing import HashModel
from .timing import LinearTiming, Timing

T = TypeVar("T")


@attrs.frozen
class StepRecord:
    """One batch that was run."""

    began: float
    passes: int
    rows: int


@attrs.define(eq=False)
class SimulatedGpu:
    """A `Device` that answers with `runner` after `timing`, in virtual time under a virtual clock.

    With `jitter`, each step takes up to that fraction more, drawn from `seed`.
    """

    runner: ModelRunner = attrs.field(factory=HashModel)
    timing: Timing = attrs.field(factory=LinearTiming)
    seed: int = attrs.field(default=0, kw_only=True)
    jitter: float = attrs.field(default=0.0, kw_only=True, validator=attrs.validators.ge(0))
    steps: list[StepRecord] = attrs.field(factory=list, init=False)
    """Every batch so far, for tests to look at."""
    _random: Random = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._random = Random(self.seed)

    async def run(self, batch: Batch) -> BatchResult:
        self.steps.append(StepRecord(trio.current_time(), batch.passes, batch.rows))
        await trio.sleep(self._seconds(batch))
        return self.runner.run(batch)

    async def apply(self, method: Callable[..., T], /, *arguments: object) -> T:
        await trio.lowlevel.checkpoint()
        return method(*arguments)

    def _seconds(self, batch: Batch) -> float:
        factor = 1 + self.jitter * self._random.random() if self.jitter else 1
        return self.timing.seconds(batch) * factor
