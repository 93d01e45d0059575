"""How long a simulated accelerator takes for a step."""

from __future__ import annotations

from typing import Protocol

import attrs
import numpy as np

from pie.batch import Batch

from .machines import Machine
from .shapes import ModelShape


class Timing(Protocol):
    """Durations, from what is asked for alone."""

    def seconds(self, batch: Batch, /) -> float:
        """Of a step."""
        ...

    def move_seconds(self, pages: int, /) -> float:
        """Of copying the contents of so many KV pages to host memory, or back."""
        ...


@attrs.frozen
class LinearTiming:
    """`step_seconds + row_seconds * rows`, and moves at once: no machine in particular."""

    step_seconds: float = 0.010
    row_seconds: float = 0.000_010

    def seconds(self, batch: Batch, /) -> float:
        return self.step_seconds + self.row_seconds * batch.rows

    def move_seconds(self, pages: int, /) -> float:
        return 0.0


@attrs.frozen
class RooflineTiming:
    """A step as a roofline model sees it: whichever of memory and arithmetic takes longer.

    The parts of a step come one after the other, `max(bytes / bandwidth, flops / rate)` each:

    * products: all weights are read once, each row is multiplied with the layers, each row with an
      output with the head;
    * attention: each pass reads the KV of its length once and writes its rows'; each row is
      multiplied with the slots it sees (masked ones too);
    * page copies, read and written, and cleared pages, written;
    * `launch_seconds`.

    What adapters and sampling cost is not counted.
    """

    machine: Machine
    shape: ModelShape
    page_size: int = 16

    def seconds(self, batch: Batch, /) -> float:
        machine = self.machine
        return (
            machine.seconds(*self.products(batch))
            + machine.seconds(*self.attention(batch))
            + machine.seconds(self.maintenance_bytes(batch), 0.0)
            + machine.launch_seconds
        )

    def move_seconds(self, pages: int, /) -> float:
        return pages * self._page_bytes / self.machine.link

    def products(self, batch: Batch, /) -> tuple[float, float]:
        """Bytes and operations of everything that multiplies with weights."""
        shape = self.shape
        outputs = len(np.union1d(batch.sampled_rows, batch.ranked_rows))
        computed = batch.rows * shape.flops_per_row + outputs * shape.flops_per_output
        return shape.step_weight_bytes, computed

    def attention(self, batch: Batch, /) -> tuple[float, float]:
        """Bytes and operations of attention."""
        rows = np.diff(batch.row_starts).astype(np.int64)
        lengths = batch.lengths.astype(np.int64)
        # The rows of a pass see lengths - rows + 1, ..., lengths slots.
        seen = int((rows * lengths - rows * (rows - 1) // 2).sum())
        touched = int(lengths.sum()) + batch.rows
        return touched * self.shape.kv_bytes_per_token, seen * self.shape.flops_per_slot

    def maintenance_bytes(self, batch: Batch, /) -> float:
        pages = 2 * len(batch.copy_sources) + len(batch.cleared_pages)
        return pages * self._page_bytes

    @property
    def _page_bytes(self) -> float:
        return self.page_size * self.shape.kv_bytes_per_token
