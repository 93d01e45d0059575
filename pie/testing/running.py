"""Runs an async test in a run of Trio of its own, in virtual time unless it says otherwise."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Generic, TypeVar

import attrs
import trio
from trio.testing import MockClock

from pie.errors import leaves

from .determinism import run_simulated

T = TypeVar("T")
Test = Callable[..., Awaitable[object]]


@attrs.define(eq=False)
class Opening(Generic[T]):
    """Something that is open for as long as a test runs, inside of that test's run of Trio."""

    open: Callable[[], AbstractAsyncContextManager[T]]
    _value: T | None = attrs.field(default=None, init=False)

    @property
    def value(self) -> T:
        if self._value is None:
            raise RuntimeError("this is open inside of an async test only")
        return self._value

    async def enter(self, stack: AsyncExitStack) -> None:
        self._value = await stack.enter_async_context(self.open())
        stack.callback(self._forget)

    def _forget(self) -> None:
        self._value = None


@attrs.frozen(kw_only=True)
class AsyncRun:
    """How a test is run."""

    real_time: bool = False
    """Trio's own clock, for tests that wait for threads, processes or the network."""
    seed: int | None = None
    """In virtual time: the order of tasks is a matter of this seed. None: any order."""
    limit: float = math.inf
    """Seconds after which the test fails. In virtual time it passes at once when nothing but it
    is left to wait for: a test whose tasks wait for each other fails instead of hanging."""

    def __call__(
        self, test: Test, arguments: Mapping[str, object], fixtures: Mapping[str, object]
    ) -> None:
        """Open every `Opening` among `fixtures` and call `test`.

        An opening among `arguments` is handed on as what it has opened. What the test raises comes
        out as it is, without the groups of the nurseries around it.
        """
        case = _Case(test, arguments, fixtures, self.limit)
        try:
            if self.real_time:
                trio.run(case.run)
            elif self.seed is None:
                trio.run(case.run, clock=MockClock(autojump_threshold=0))
            else:
                run_simulated(case.run, seed=self.seed)
        except BaseExceptionGroup as group:
            if case.failure is not None and all(leaf is case.failure for leaf in leaves(group)):
                raise case.failure from None
            raise


@attrs.define(eq=False)
class _Case:
    """One call of a test."""

    test: Test
    arguments: Mapping[str, object]
    fixtures: Mapping[str, object]
    limit: float
    failure: BaseException | None = None

    async def run(self) -> None:
        with trio.move_on_after(self.limit) as limit:
            async with AsyncExitStack() as stack:
                for fixture in self.fixtures.values():
                    if isinstance(fixture, Opening):
                        await fixture.enter(stack)
                await self._call()
        if limit.cancelled_caught:
            raise AssertionError(
                f"the test has not ended after {self.limit:.0f} s of its clock: what is it "
                "waiting for?"
            )

    async def _call(self) -> None:
        arguments: dict[str, Any] = {
            name: value.value if isinstance(value, Opening) else value
            for name, value in self.arguments.items()
        }
        try:
            await self.test(**arguments)
        except trio.Cancelled:
            raise
        except BaseException as error:
            self.failure = error
            raise
