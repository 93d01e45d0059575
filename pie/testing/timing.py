"""How long a simulated accelerator takes for a step."""

from __future__ import annotations

from typing import Protocol

import attrs

from pie.batch import Batch


class Timing(Protocol):
    """The duration of a step, from its batch alone."""

    def seconds(self, batch: Batch, /) -> float: ...


@attrs.frozen
class LinearTiming:
    """`step_seconds + row_seconds * rows`: no machine in particular."""

    step_seconds: float = 0.010
    row_seconds: float = 0.000_010

    def seconds(self, batch: Batch, /) -> float:
        return self.step_seconds + self.row_seconds * batch.rows
