"""Models that are loaded here, as devices: in a worker thread, or by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import attrs
import trio

from .actors.executor import Device
from .batch import Batch, BatchResult, ModelRunner
from .multistep import MultiStep, step_by_step
from .signals import Signal
from .starting import StartingRunner

T = TypeVar("T")
U = TypeVar("U")


def device_of(runner: ModelRunner) -> Device:
    """The runner, behind the door that an executor asks for."""
    return StartedModel(runner) if isinstance(runner, StartingRunner) else ThreadedModel(runner)


@attrs.frozen
class ThreadedModel:
    """A loaded model whose work is done in a worker thread.

    A thread cannot be stopped: of a call that is cancelled it goes on, and the next one waits.
    """

    runner: ModelRunner
    _turn: trio.CapacityLimiter = attrs.field(
        factory=lambda: trio.CapacityLimiter(1), init=False, repr=False
    )
    """Its own: guests with long texts may keep all of the shared ones busy."""

    async def run(self, batch: Batch) -> BatchResult:
        return await self.apply(self.runner.run, batch)

    async def run_steps(self, steps: MultiStep) -> None:
        await step_by_step(self.run, steps)

    async def apply(self, method: Callable[..., T], /, *arguments: object) -> T:
        return await _in_thread(self._turn, method, *arguments)


@attrs.frozen
class StartedModel:
    """A loaded model that makes steps by itself: the loop begins them, and hears of their end.

    Other work is done in a worker thread. Nothing of it can be stopped: of a call that is cancelled
    it goes on, and the next one waits.
    """

    runner: StartingRunner
    _turn: trio.CapacityLimiter = attrs.field(
        factory=lambda: trio.CapacityLimiter(1), init=False, repr=False
    )

    async def run(self, batch: Batch) -> BatchResult:
        return await self._make(self.runner.start, batch)

    async def run_steps(self, steps: MultiStep) -> None:
        await self._make(self.runner.start_steps, steps, steps.progress)

    async def apply(self, method: Callable[..., T], /, *arguments: object) -> T:
        return await _in_thread(self._turn, method, *arguments)

    async def _make(self, start: Callable[[U], T], work: U, progress: Signal | None = None) -> T:
        """Begin `work`, and return when it is over; sets `progress` whenever the bell rings."""
        turn = object()
        try:  # at once, where that is possible: to wait is a pass of the loop
            self._turn.acquire_on_behalf_of_nowait(turn)
        except trio.WouldBlock:
            await self._turn.acquire_on_behalf_of(turn)
        try:
            result = start(work)
            await self._end(progress)
        finally:
            if self.runner.over:
                self._turn.release_on_behalf_of(turn)
            else:
                trio.lowlevel.spawn_system_task(self._end_later, turn)
        return result

    async def _end(self, progress: Signal | None = None) -> None:
        bell = self.runner.bell
        while not self.runner.over:
            await trio.lowlevel.wait_readable(bell.descriptor)
            bell.silence()
            if progress is not None:
                progress.set()

    async def _end_later(self, turn: object) -> None:
        """Of a call that was cancelled."""
        await self._end()
        self._turn.release_on_behalf_of(turn)


async def _in_thread(
    turn: trio.CapacityLimiter, method: Callable[..., T], /, *arguments: object
) -> T:
    return await trio.to_thread.run_sync(method, *arguments, limiter=turn, abandon_on_cancel=True)
