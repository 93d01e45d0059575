"""Events that a task can wait for alone or in a group, without a nursery.

A WIT pollable is one of these. `trio.Event` cannot be awaited in a group, and a nursery per
`poll` call was measured at 2.4 times the cost for guests that poll lists. A `Signal` is
level-triggered; a `Deadline` is ready from a point of Trio's clock on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import attrs
import trio
from trio.lowlevel import Abort, Task


@attrs.define(eq=False)
class Waiter:
    """The parking place of one task, reused for all its waits.

    `woken` is called synchronously when something the task waits for becomes ready, before the
    task itself runs: from that moment a guest counts as moving (see `pie.activity`).
    """

    woken: Callable[[], None] | None = None
    _task: Task | None = None

    def wake(self) -> None:
        """Let the parked task run again; does nothing if it is not parked."""
        task = self._task
        if task is None:
            return
        self._task = None
        if self.woken is not None:
            self.woken()
        trio.lowlevel.reschedule(task)

    async def park(self) -> None:
        """Sleep until `wake` is called or the task is cancelled."""
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _: object) -> Abort:
        self._task = None
        return Abort.SUCCEEDED


class Signal:
    """A flag that tasks wait for. Setting it never blocks."""

    __slots__ = ("_set", "_waiters")

    def __init__(self, *, ready: bool = False) -> None:
        self._set = ready
        self._waiters: list[Waiter] = []

    def ready(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        waiters = self._waiters
        if waiters:
            self._waiters = []
            for waiter in waiters:
                waiter.wake()

    def clear(self) -> None:
        self._set = False

    def add(self, waiter: Waiter) -> None:
        self._waiters.append(waiter)

    def discard(self, waiter: Waiter) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)


@attrs.frozen
class Deadline:
    """Ready from time `at` of Trio's clock on."""

    at: float

    def ready(self) -> bool:
        return trio.current_time() >= self.at


Pollable: TypeAlias = Signal | Deadline


async def wait_any(pollables: Sequence[Pollable], waiter: Waiter | None = None) -> None:
    """Return when at least one of `pollables` is ready.

    Returns at once, without a checkpoint, when one already is.
    """
    for pollable in pollables:
        if pollable.ready():
            return
    waiter = waiter or Waiter()
    if len(pollables) == 1 and isinstance(pollables[0], Signal):
        await _wait_one(pollables[0], waiter)
        return
    signals = [p for p in pollables if isinstance(p, Signal)]
    at = min((p.at for p in pollables if isinstance(p, Deadline)), default=math.inf)
    for signal in signals:
        signal.add(waiter)
    try:
        if at == math.inf:
            await waiter.park()
            return
        with trio.CancelScope(deadline=at) as scope:
            await waiter.park()
        if scope.cancelled_caught and waiter.woken is not None:
            waiter.woken()
    finally:
        for signal in signals:
            signal.discard(waiter)


async def _wait_one(signal: Signal, waiter: Waiter) -> None:
    """The common case, at two thirds of the cost."""
    signal.add(waiter)
    try:
        await waiter.park()
    finally:
        signal.discard(waiter)
