"""The memory a step works in, grown to the largest step so far."""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.kernels.cpu.arrays import address, reserve


@attrs.define(eq=False)
class Buffers:
    """Named pieces of memory. One that is asked for with more bytes is made anew, with zeros."""

    _held: dict[str, NDArray[np.uint8]] = attrs.field(factory=dict, init=False, repr=False)

    def at(self, name: str, size: int) -> int:
        """The address of a piece of at least `size` bytes; its content means nothing."""
        held = self._held.get(name)
        if held is None or len(held) < size:
            held = self._held[name] = reserve(max(size, 64))
        return address(held)
