"""Events that a task can wait for alone or in a group, without a nursery.

A WIT pollable is one of these. `trio.Event` cannot be awaited in a group, and a nursery per
`poll` call was measured at 2.4 times the cost for guests that poll lists. A `Signal` is
level-triggered; a `Deadline` is ready from a point of Trio's clock on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias

import attrs
import trio
from trio.lowlevel import Abort, Task


class _Nothing:
    """The outcome None, used again and again: Trio's own are made for one use."""

    __slots__ = ()

    def unwrap(self) -> None:
        pass


_NOTHING: Any = _Nothing()


class Watcher(Protocol):
    """What a signal tells that it is set, once."""

    def wake(self) -> None: ...

    def nudge(self) -> None: ...


@attrs.define(eq=False)
class Waiter:
    """The parking place of one task, reused for all its waits.

    `woken` is called synchronously when something the task waits for becomes ready, before the
    task itself runs: from that moment a guest counts as moving (see `pie.activity`).
    """

    woken: Callable[[], None] | None = None
    _task: Task | None = None
    _parked: bool = False
    _nudged: bool = False
    """Woken without `woken`, and perhaps not running yet."""

    def wake(self) -> None:
        """Let the parked task run again; does nothing if it is not parked."""
        if not self._parked:
            if self._nudged and self.woken is not None:
                self._nudged = False
                self.woken()
            return
        self._parked = False
        if self.woken is not None:
            self.woken()
        assert self._task is not None
        trio.lowlevel.reschedule(self._task, _NOTHING)

    def nudge(self) -> None:
        """`wake`, without telling `woken`, unless a `wake` follows before the task parks again."""
        if self._parked:
            self._parked = False
            self._nudged = True
            assert self._task is not None
            trio.lowlevel.reschedule(self._task, _NOTHING)

    async def park(self) -> None:
        """Sleep until `wake` is called or the task is cancelled."""
        self._task = trio.lowlevel.current_task()
        self._parked, self._nudged = True, False
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def wait(self, pollables: Sequence[Pollable]) -> Coroutine[Any, Any, None]:
        """What to await until one of `pollables`, none of which is ready now, may be."""
        if len(pollables) == 1:
            (pollable,) = pollables
            if isinstance(pollable, Signal):
                return self._wait_for(pollable)
        return wait_any(pollables, self)

    async def _wait_for(self, signal: Signal) -> None:
        """The common case, at half the cost."""
        signal.add(self)
        if self._task is None:
            self._task = trio.lowlevel.current_task()
        self._parked, self._nudged = True, False
        try:
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        except BaseException:
            signal.discard(self)  # one that is set has forgotten its waiters
            raise

    def _abort(self, _: object) -> Abort:
        self._parked = False
        return Abort.SUCCEEDED


class Signal:
    """A flag that tasks wait for. Setting it never blocks."""

    __slots__ = ("_set", "_waiters")

    def __init__(self, *, ready: bool = False) -> None:
        self._set = ready
        self._waiters: list[Watcher] = []

    def ready(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        waiters = self._waiters
        if waiters:
            self._waiters = []
            for waiter in waiters:
                waiter.wake()

    def nudge(self) -> None:
        """Set it for guests that do not count as moving on its account."""
        self._set = True
        waiters = self._waiters
        if waiters:
            self._waiters = []
            for waiter in waiters:
                waiter.nudge()

    def clear(self) -> None:
        self._set = False

    def add(self, waiter: Watcher) -> None:
        self._waiters.append(waiter)

    def discard(self, waiter: Watcher) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)


@attrs.define(eq=False)
class _Callback:
    """Calls `call` whenever its signal is set, and clears that before."""

    signal: Signal
    call: Callable[[], None]

    def wake(self) -> None:
        self.signal.clear()
        self.signal.add(self)
        self.call()

    nudge = wake


@contextmanager
def calling(call: Callable[[], None], signal: Signal) -> Iterator[None]:
    """Within the context `call` runs whenever `signal` is set, in `set` itself: for what takes less
    time than waking a task. It is cleared before.
    """
    callback = _Callback(signal, call)
    if signal.ready():
        callback.wake()
    else:
        signal.add(callback)
    try:
        yield
    finally:
        signal.discard(callback)


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
        await waiter.wait(pollables)
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
