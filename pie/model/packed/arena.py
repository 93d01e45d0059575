"""One piece of memory for all weights, in huge pages where the system has them."""

from __future__ import annotations

import mmap
from contextlib import suppress

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.errors import ModelError

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector."""

_HUGE_PAGE = 1 << 21


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
            mapped = mmap.mmap(-1, size + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError) as error:
            raise ModelError(f"no memory for {size} bytes of weights: {error}") from None
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # a kernel without them
                mapped.madvise(mmap.MADV_HUGEPAGE)
        memory = np.frombuffer(mapped, np.uint8)
        start = -int(memory.__array_interface__["data"][0]) % _HUGE_PAGE
        return Arena(memory[start : start + size])

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
