"""Notices runs that do not end, and tasks that are left."""

from __future__ import annotations

from collections import Counter

import attrs
import trio
from trio.abc import Instrument

TURNS = 50_000
"""Turns of Trio's loop without any time passing: more means that tasks wake each other for ever,
or that all wait for something that never comes."""


@attrs.define(eq=False)
class Watchdog(Instrument):
    """Cancels `scope`, shields or not, when the run goes round in circles."""

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _tasks: dict[trio.lowlevel.Task, None] = attrs.field(factory=dict)
    _turns: int = 0
    _time: float = -1.0

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self._tasks[task] = None

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        del self._tasks[task]

    def before_io_wait(self, timeout: float) -> None:
        now = trio.current_time()
        if now != self._time:
            self._time, self._turns = now, 0
        self._turns += 1
        if self._turns > TURNS:
            self._turns = 0
            self.end_all()

    def end_all(self) -> None:
        """Cancel whatever runs, actors that outlive cancellation too."""
        for task in list(self._tasks):
            _unshield(task)
        self.scope.cancel()

    def tasks(self) -> Counter[str]:
        """The tasks there are, by name."""
        return Counter(task.name for task in self._tasks)


def _unshield(task: trio.lowlevel.Task) -> None:
    # Trio has no public way from a task to the scopes around it.
    status = task._cancel_status
    while status is not None and status._parent is not None:
        status._scope.shield = False
        status = status._parent
