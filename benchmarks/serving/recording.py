"""A runner that notes when each of its steps began and ended."""

from __future__ import annotations

import statistics
import time
from itertools import pairwise
from typing import cast

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.batch import AdapterCommand, Batch, BatchResult, Floats, Ints, ModelInfo, ModelRunner
from pie.multistep import Bell, MultiStep, MultiStepRunner


@attrs.frozen
class Step:
    """One step, in seconds of `perf_counter`."""

    began: float
    ended: float
    passes: int
    rows: int


@attrs.define(eq=False)
class RecordingRunner:
    """A `ModelRunner` in front of another one."""

    inner: ModelRunner
    steps: list[Step] = attrs.field(factory=list)

    @property
    def info(self) -> ModelInfo:
        return self.inner.info

    def run(self, batch: Batch) -> BatchResult:
        began = time.perf_counter()
        result = self.inner.run(batch)
        self.steps.append(Step(began, time.perf_counter(), batch.passes, batch.rows))
        return result

    def run_steps(self, steps: MultiStep, bell: Bell, /) -> None:
        """Several steps of one call: each is noted with the same share of its time."""
        began = time.perf_counter()
        cast(MultiStepRunner, self.inner).run_steps(steps, bell)
        ends = np.linspace(began, time.perf_counter(), steps.done + 1).tolist()
        shape = (steps.batch.passes, steps.batch.rows)
        self.steps += [Step(start, end, *shape) for start, end in pairwise(ends)]

    def read_pages(self, pages: Ints, /) -> NDArray[np.uint8]:
        return self.inner.read_pages(pages)

    def write_pages(self, pages: Ints, contents: NDArray[np.uint8], /) -> None:
        self.inner.write_pages(pages, contents)

    def read_embeddings(self, slots: Ints, /) -> Floats:
        return self.inner.read_embeddings(slots)

    def adapt(self, command: AdapterCommand, /) -> bytes:
        return self.inner.adapt(command)

    def close(self) -> None:
        self.inner.close()

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
