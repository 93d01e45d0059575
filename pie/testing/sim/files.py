"""Files that are slow and full as a seed decides: an `Offload` around another one."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeVar

import attrs
import trio

from pie.errors import UsageError
from pie.offload import Offload

from .device import FAULT
from .machine import Machine

T = TypeVar("T")

WRITES = {"save", "_set"}
"""What writes exports and pairs; reading needs no room."""
SLOW_STEPS = 20
"""A slow call takes at most as long as so many steps."""


@attrs.define(eq=False)
class FaultyFiles:
    """Calls that take their time, and writes that fail as a full disk does."""

    offload: Offload
    machine: Machine
    random: Random

    async def __call__(self, function: Callable[..., T], /, *arguments: object) -> T:
        if self._happens(self.machine.slow_files):
            await trio.sleep(self.random.uniform(0, SLOW_STEPS) * self.machine.step_seconds)
        write = getattr(function, "__name__", "") in WRITES
        if write and self._happens(self.machine.disk_full):
            raise UsageError(f"cannot keep state: {FAULT}: no space left on device")
        return await self.offload(function, *arguments)

    def _happens(self, probability: float) -> bool:
        return self.random.random() < probability
