"""A device that fails or hangs without taking the engine with it (docs/decisions/0015)."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import attrs
import trio

from .actors.executor import Device
from .batch import Batch, BatchResult, ModelRunner
from .errors import DeviceStalled, PassFailed, PieError
from .multistep import MultiStep
from .signals import Signal, wait_any

T = TypeVar("T")

log = logging.getLogger(__name__)

MAX_REASON = 500
"""Characters of an error's text that guests and clients are told; the log has all."""


@attrs.define(eq=False)
class GuardedDevice:
    """A `Device` around another: for servers, where one bad step must not end everybody.

    What the runner raises fails the call, as does taking longer than `limit_seconds`, which is
    DeviceStalled. A call that is given up cannot be stopped: it goes on, what it gives is dropped,
    and no other one reaches the runner before it has returned. So nothing is written to pages
    that others have by then. Those that wait for it fail after `limit_seconds` as well.

    For one caller at a time, such as an `Executor`.
    """

    device: Device
    limit_seconds: float = attrs.field(validator=attrs.validators.gt(0))
    on_step: Callable[[Batch, float], None] | None = attrs.field(default=None, kw_only=True)
    """Called with each step of a call that went well, and its seconds, which are those of a call
    of several steps divided among them."""
    running_since: float | None = attrs.field(default=None, init=False)
    """When the call that runs now began, on Trio's clock; also of one that was given up."""
    failures: int = attrs.field(default=0, init=False)
    """Steps that were lost, and calls of any kind whose runner raised or did not answer in time.
    That the runner refuses a guest's command is none."""
    consecutive_failures: int = attrs.field(default=0, init=False)
    """Since a step went well."""
    last_failure: str = attrs.field(default="", init=False)
    """Why; empty if there was none."""
    _free: Signal = attrs.field(factory=lambda: Signal(ready=True), init=False, repr=False)
    """Not ready while a call goes on that was given up."""
    _ends: float = attrs.field(default=math.inf, init=False, repr=False)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False, repr=False)
    """Of the last call."""

    @property
    def runner(self) -> ModelRunner:
        return self.device.runner

    def stalled(self, now: float) -> bool:
        """Whether a call has been running for longer than it may."""
        return self.running_since is not None and now - self.running_since >= self.limit_seconds

    def give_up_after(self, seconds: float) -> None:
        """In `seconds` give up what runs then, and at once what comes later.

        For the end of an engine, which then waits for its device no longer than that in all.
        """
        self._ends = trio.current_time() + seconds
        self._scope.deadline = min(self._scope.deadline, self._ends)

    async def run(self, batch: Batch) -> BatchResult:
        return await self._step(partial(self.device.run, batch), batch, lambda: 1)

    async def run_steps(self, steps: MultiStep) -> None:
        call = partial(self.device.run_steps, steps)
        await self._step(call, steps.batch, lambda: steps.done)

    async def _step(
        self, call: Callable[[], Awaitable[T]], batch: Batch, made: Callable[[], int]
    ) -> T:
        """A call that begins with `batch` and has made so many steps when it is over."""
        await self._turn("a step")
        began = trio.current_time()
        result = await self._call("a step", call, is_step=True)
        if self.on_step is not None:
            count = made()
            seconds = (trio.current_time() - began) / count
            for _ in range(count):
                self.on_step(batch, seconds)
        return result

    async def apply(self, method: Callable[..., T], /, *arguments: object) -> T:
        what = getattr(method, "__name__", "a call")
        await self._turn(what)
        return await self._call(what, partial(self.device.apply, method, *arguments))

    async def _turn(self, what: str) -> None:
        """Wait for a call that was given up. DeviceStalled if that takes too long as well."""
        if self._free.ready():
            return
        began = trio.current_time()
        with self._limited():
            await wait_any((self._free,))
            return
        waited = trio.current_time() - began
        raise self._stalled(f"{what} has waited {waited:.1f} s for an earlier call to return")

    async def _call(
        self, what: str, call: Callable[[], Awaitable[T]], *, is_step: bool = False
    ) -> T:
        began = self.running_since = trio.current_time()
        failure: PassFailed | None = None
        try:
            with self._limited():
                result = await call()
                if is_step:
                    self.consecutive_failures = 0
                return result
        except PieError as error:
            if is_step:
                self._note(str(error))
            raise
        except Exception as error:  # whatever a runner raises, it is not the engine that is broken
            log.exception("model %s: %s failed", self.runner.info.name, what)
            failure = PassFailed(f"{what} failed: {type(error).__name__}: {_one_line(error)}")
        finally:
            self.running_since = None
        if failure is not None:  # raised here, so that it does not hold the frames of the other
            self._note(str(failure))
            raise failure
        self.running_since = began
        self._free.clear()
        trio.lowlevel.spawn_system_task(self._await_return)
        taken = trio.current_time() - began
        raise self._stalled(f"{what} has taken {taken:.1f} s and may still be at it")

    def _limited(self) -> trio.CancelScope:
        deadline = min(trio.current_time() + self.limit_seconds, self._ends)
        self._scope = trio.CancelScope(deadline=deadline)
        return self._scope

    def _stalled(self, text: str) -> DeviceStalled:
        ending = trio.current_time() >= self._ends
        text += ", the engine ends" if ending else f", the limit is {self.limit_seconds:g} s"
        log.error("model %s: %s", self.runner.info.name, text)
        self._note(text)
        return DeviceStalled(text)

    async def _await_return(self) -> None:
        """Until the call that was given up has returned: a device lets none in before that."""
        try:
            await self.device.apply(_nothing)
        except Exception:  # a system task must not raise; that it was let in is all that counts
            log.exception("model %s: it returned, and could not be called", self.runner.info.name)
        if self.running_since is not None:
            seconds = trio.current_time() - self.running_since
            log.warning("model %s: answers again after %.1f s", self.runner.info.name, seconds)
        self.running_since = None
        self._free.set()

    def _note(self, reason: str) -> None:
        self.failures += 1
        self.consecutive_failures += 1
        self.last_failure = reason


def _nothing() -> None:
    """To be called where nothing else may run."""


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}…"
