"""Work that several want at once is done once; and a lock for which users take turns."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager, suppress
from typing import Generic, TypeVar

import attrs
import trio

from pie.errors import Closed, PieError
from pie.mailbox import Reply

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@attrs.define(eq=False)
class _Flight(Generic[T]):
    reply: Reply[T] = attrs.field(factory=Reply)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    waiting: int = 0


@attrs.define(eq=False)
class SharedWork(Generic[K, T]):
    """Runs work in a nursery, each key's once at a time, for as long as somebody waits for it.

    A PieError is everybody's who waits; anything else ends the nursery.
    """

    _nursery: trio.Nursery
    _flights: dict[K, _Flight[T]] = attrs.field(factory=dict)

    async def do(self, key: K, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` gives, or what the work that goes on under this key already gives.

        The work is cancelled only when all who wait for it are.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight()
            self._nursery.start_soon(self._run, key, flight, work)
        return await self._wait(key, flight)

    async def join(self, key: K) -> None:
        """Wait for what goes on under this key, if anything does, however it ends."""
        flight = self._flights.get(key)
        if flight is not None:
            with suppress(PieError):  # whoever asked for the work is told
                await self._wait(key, flight)

    def going_on(self) -> tuple[K, ...]:
        """The keys under which something does."""
        return tuple(self._flights)

    async def _wait(self, key: K, flight: _Flight[T]) -> T:
        flight.waiting += 1
        try:
            return await flight.reply.wait()
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.reply.ready():
                self._forget(key, flight)
                flight.scope.cancel()

    async def _run(self, key: K, flight: _Flight[T], work: Callable[[], Awaitable[T]]) -> None:
        try:
            with flight.scope:
                flight.reply.answer(await work())
        except PieError as error:
            flight.reply.fail(error)
        finally:
            self._forget(key, flight)
            if not flight.reply.ready():
                flight.reply.fail(Closed("the server is stopping"))

    def _forget(self, key: K, flight: _Flight[T]) -> None:
        """Whoever comes from now on begins anew."""
        if self._flights.get(key) is flight:
            del self._flights[key]


@attrs.define(eq=False)
class Turns:
    """A lock. Of those who wait, each user is next in turn, with what it asked for first."""

    _held: bool = False
    _lines: dict[str, deque[trio.Event]] = attrs.field(factory=dict)
    """Of users who wait, the next one first."""

    @asynccontextmanager
    async def turn(self, user: str) -> AsyncIterator[None]:
        await self._acquire(user)
        try:
            yield
        finally:
            self._release()

    async def _acquire(self, user: str) -> None:
        if not self._held:
            self._held = True
            return
        called = trio.Event()
        self._lines.setdefault(user, deque()).append(called)
        try:
            await called.wait()
        except BaseException:
            if called.is_set():
                self._release()
            else:
                self._leave(user, called)
            raise

    def _leave(self, user: str, called: trio.Event) -> None:
        line = self._lines[user]
        line.remove(called)
        if not line:
            del self._lines[user]

    def _release(self) -> None:
        user = next(iter(self._lines), None)
        if user is None:
            self._held = False
            return
        line = self._lines.pop(user)
        line.popleft().set()
        if line:
            self._lines[user] = line
