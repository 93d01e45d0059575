"""The threads that work on a step."""

from __future__ import annotations

import select
import threading
import weakref

import numpy as np
from numpy.typing import NDArray

from pie.kernels.cpu.arrays import address
from pie.kernels.cpu.multistep import run_steps, work
from pie.kernels.cpu.threads import (
    ARRIVED,
    DOOR,
    ENDED,
    FIRST_DOOR,
    ONE,
    STARTED,
    STOP,
    SYNC_BYTES,
    open_door,
)
from pie.starting import Bell


class Crew:
    """Workers that carry out a plan, and sleep between calls."""

    def __init__(self, plan: NDArray[np.void], threads: int) -> None:
        """Start `threads` workers; all look at `plan`."""
        self.bell = Bell()
        """Rung at the end of what was started, and after steps that are announced before."""
        self._plan, self._plan_address = plan, address(plan)
        self._sync = np.zeros(SYNC_BYTES // 8, np.int64)
        self._sync[ONE // 8] = 1
        self._sync_address = address(self._sync)
        plan["sync"], plan["threads"] = self._sync_address, threads
        plan["bell"] = self.bell.descriptor
        workers = [
            threading.Thread(target=work, args=(number, self._plan_address), daemon=True)
            for number in range(threads)
        ]
        for worker in workers:
            worker.start()
        # They read memory of this object's: nobody has to remember to end them.
        self.end = weakref.finalize(self, _end_workers, workers, self._sync, plan, self.bell)
        """End the workers, after what was started; nothing can be run any more."""

    @property
    def over(self) -> bool:
        """Whether all that was begun has ended."""
        return bool(self._sync[ENDED // 8] == self._sync[STARTED // 8])

    def start(self) -> None:
        """Have the plan, which is prepared, carried out. Nothing may be under way."""
        self._begin(rings=1)
        open_door(self._sync_address + FIRST_DOOR)

    def run(self) -> None:
        """Carry out the plan, and be one of the threads. Nothing may be under way."""
        self._begin(rings=0)
        run_steps(0, self._plan_address)

    def _begin(self, rings: int) -> None:
        assert self.over, "one call at a time"
        self._plan["met"], self._plan["rings"] = self._sync[ARRIVED // 8], rings
        self._sync[STARTED // 8] += 1


def _end_workers(
    workers: list[threading.Thread], sync: NDArray[np.int64], plan: NDArray[np.void], bell: Bell
) -> None:
    """End workers when they are idle. They look at `sync` and `plan`, which live until then."""
    ringing = select.poll()
    ringing.register(bell.descriptor, select.POLLIN)
    while sync[ENDED // 8] != sync[STARTED // 8]:
        ringing.poll()
        bell.silence()
    sync[STOP // 8] = 1
    for door in (FIRST_DOOR, DOOR):
        open_door(address(sync) + door)
    for worker in workers:
        worker.join()
