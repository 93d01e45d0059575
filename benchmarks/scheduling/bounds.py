"""What is possible at all: ideal loops, best rules, and the largest host cost that would do."""

from __future__ import annotations

import attrs
import numpy as np

from pie.actors.dispatch import best_throughput
from pie.batch import Batch, ints
from pie.testing import H100, H200, LLAMA_3_8B, Machine, ModelShape, RooflineTiming

GUESTS = 256
FP8 = attrs.evolve(LLAMA_3_8B, name="Llama-3-8B fp8", weight_bytes_each=1)
CASES = ((H100, LLAMA_3_8B), (H100, FP8), (H200, LLAMA_3_8B))


@attrs.frozen
class Bound:
    """Looping guests of equal context on a machine."""

    machine: Machine
    shape: ModelShape
    guests: int
    context: int

    def step_seconds(self, rows: float) -> float:
        """Of a decode step."""
        count = round(rows)
        batch = Batch(
            tokens=ints([0] * count),
            positions=ints([self.context] * count),
            row_starts=ints(range(count + 1)),
            pages=ints(),
            page_starts=ints([0] * (count + 1)),
            lengths=np.full(count, self.context, dtype=np.int32),
            sampled_rows=ints(range(count)),
        )
        return RooflineTiming(self.machine, self.shape).seconds(batch)

    @property
    def ideal(self) -> float:
        """Tokens per second of a loop without any host."""
        return self.guests / self.step_seconds(self.guests)

    def best(self, host_seconds: float) -> float:
        """Tokens per second that no rule exceeds."""
        return best_throughput(self.guests, self.step_seconds, host_seconds)

    def largest_host_seconds(self, share: float) -> float:
        """The host cost up to which the best rule reaches this share of the ideal."""
        low, high = 0.0, 0.01
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if self.best(middle) >= share * self.ideal else (low, middle)
        return low


def full(machine: Machine, shape: ModelShape, guests: int = GUESTS) -> Bound:
    """Contexts as long as memory holds."""
    return Bound(machine, shape, guests, machine.pages(shape, 16) * 16 // guests)
