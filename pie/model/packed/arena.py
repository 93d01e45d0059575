"""One piece of memory for all weights, in huge pages where the system has them."""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.errors import ModelError
from pie.kernels.cpu.arrays import reserve

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector."""


@attrs.define(eq=False)
class Arena:
    """Hands out aligned memory from its start to its end; none of it is ever given back.

    Memory that nobody has written takes none: an arena may be larger than what is needed.
    """

    memory: NDArray[np.uint8] = attrs.field(repr=False)
    used: int = 0

    @staticmethod
    def reserve(size: int) -> Arena:
        """An arena of `size` bytes, all zero; ModelError if the system does not have them."""
        try:
            return Arena(reserve(size))
        except (OSError, OverflowError) as error:
            raise ModelError(f"no memory for {size} bytes of weights: {error}") from None

    def take(self, size: int) -> NDArray[np.uint8]:
        """The next `size` bytes, aligned; ModelError if there are not as many left."""
        start = -(-self.used // ALIGNMENT) * ALIGNMENT
        if start + size > len(self.memory):
            raise ModelError(
                f"the weights' memory of {len(self.memory)} bytes is too small: "
                f"{start + size} are needed"
            )
        self.used = start + size
        return self.memory[start : self.used]
