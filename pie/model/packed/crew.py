"""The threads that work on a step."""

from __future__ import annotations

import threading
import weakref

import numpy as np
from numpy.typing import NDArray

from pie.kernels.cpu.arrays import address
from pie.kernels.cpu.multistep import run_steps, work
from pie.kernels.cpu.threads import ARRIVED, STOP, SYNC_BYTES, wake


class Crew:
    """The caller's thread and workers, which sleep between calls."""

    def __init__(self, plan: NDArray[np.void], threads: int) -> None:
        """Start the workers of `threads`, the caller's among them; all look at `plan`."""
        self._plan, self._plan_address = plan, address(plan)
        self._sync = np.zeros(SYNC_BYTES // 8, np.int64)
        self._threads = threads
        plan["sync"], plan["threads"] = address(self._sync), threads
        workers = [
            threading.Thread(target=work, args=(number, self._plan_address), daemon=True)
            for number in range(1, threads)
        ]
        for worker in workers:
            worker.start()
        # They read memory of this object's: nobody has to remember to end them.
        self.end = weakref.finalize(self, _end_workers, workers, self._sync, plan)
        """End the workers; nothing can be run any more."""

    def run(self) -> None:
        """Carry out the plan, which is prepared."""
        self._plan["met"] = self._sync[ARRIVED // 8]
        if self._threads > 1:
            wake(address(self._sync))
        run_steps(0, self._plan_address)


def _end_workers(
    workers: list[threading.Thread], sync: NDArray[np.int64], plan: NDArray[np.void]
) -> None:
    """End idle workers. They look at `sync` and `plan`, which live until then."""
    sync[STOP // 8] = 1
    wake(address(sync))
    for worker in workers:
        worker.join()
