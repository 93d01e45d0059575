"""The strands of a native guest, and when one of them moves (see `pie.activity`).

A *strand* is a coroutine that runs in a task of its own: `main`, and what the library's `gather`
starts. The guest counts as moving while one of them runs or something it waits for through the
library is ready; whatever else a strand awaits, ours or not, it is seen to stop at that point.
Tasks that a guest starts in a nursery of its own are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Sequence
from contextvars import ContextVar
from types import coroutine
from typing import Any, TypeVar

import attrs
import trio

from pie.activity import Mover
from pie.signals import Pollable, Waiter, wait_any

T = TypeVar("T")


@attrs.define(eq=False)
class _Strand:
    """A coroutine of the guest in a task of its own."""

    waiter: Waiter
    awake: bool = False
    task: trio.lowlevel.Task | None = None


_STRAND: ContextVar[_Strand] = ContextVar("_STRAND")


@attrs.define(eq=False)
class Strands:
    """Those of one guest, which moves while one of them does."""

    _mover: Mover
    _awake: int = 0

    def watch(self, strand: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """`strand`, counted as moving from now on whenever it runs; await it in its own task."""
        watched = _Strand(Waiter())
        watched.waiter.woken = lambda: self._start(watched)
        self._start(watched)
        return self._run(watched, strand)

    async def wait(self, pollables: Sequence[Pollable]) -> None:
        """Until one of them is ready."""
        strand = _STRAND.get(None)
        mine = strand is not None and strand.task is trio.lowlevel.current_task()
        waiter = strand.waiter if strand is not None and mine else Waiter()
        while not any(pollable.ready() for pollable in pollables):
            await wait_any(pollables, waiter)

    async def _run(self, strand: _Strand, guest: Coroutine[Any, Any, T]) -> T:
        strand.task = trio.lowlevel.current_task()
        token = _STRAND.set(strand)
        try:
            return await _stepping(guest, lambda: self._start(strand), lambda: self._stop(strand))
        finally:
            _STRAND.reset(token)
            self._stop(strand)

    def _start(self, strand: _Strand) -> None:
        if not strand.awake:
            strand.awake = True
            self._awake += 1
        self._mover.start()

    def _stop(self, strand: _Strand) -> None:
        if strand.awake:
            strand.awake = False
            self._awake -= 1
            if not self._awake:
                self._mover.stop()


@coroutine
def _stepping(
    guest: Coroutine[Any, Any, T], started: Callable[[], None], stopped: Callable[[], None]
) -> Generator[Any, Any, T]:
    """Await `guest`, telling whenever it suspends its task and whenever it goes on."""
    step: Callable[[Any], Any] = guest.send
    value: Any = None
    while True:
        try:
            trap = step(value)
        except StopIteration as end:
            result: T = end.value
            return result
        stopped()
        try:
            value = yield trap
            step = guest.send
        except BaseException as error:  # noqa: BLE001  # raised inside the guest, Cancelled too
            step, value = guest.throw, error
        started()
