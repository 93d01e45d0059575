"""What is still to happen in a replay: actions at their times, and answers whenever they come."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

import attrs
import trio

from pie.errors import UsageError
from pie.signals import Deadline, Signal, wait_any

STUCK_SECONDS = 1e6
"""Of virtual time without an answer, after which nobody waits any longer."""


@attrs.define(eq=False)
class Agenda:
    """Runs until nothing is left."""

    _actions: list[tuple[float, int, int, Callable[[], None]]] = attrs.field(factory=list)
    """A heap: time, order among those of one time, order of entry."""
    _entries: count[int] = attrs.field(factory=count)
    _unanswered: dict[int, None] = attrs.field(factory=dict)
    """By `op`, in order."""
    _changed: Signal = attrs.field(factory=Signal)

    def at(self, when: float, order: int, action: Callable[[], None]) -> None:
        """Do `action` at virtual time `when`, among those of that time by `order`."""
        heapq.heappush(self._actions, (when, order, next(self._entries), action))
        self._changed.set()

    def expect(self, op: int) -> None:
        """Request `op` will be answered."""
        self._unanswered[op] = None

    def came(self, op: int) -> None:
        """The answer to request `op` is there."""
        del self._unanswered[op]
        self._changed.set()

    async def run(self) -> None:
        """Do it all; UsageError if an answer never comes."""
        while self._actions or self._unanswered:
            while self._actions and self._actions[0][0] <= trio.current_time():
                heapq.heappop(self._actions)[-1]()
            self._changed.clear()
            until = self._actions[0][0] if self._actions else trio.current_time() + STUCK_SECONDS
            await wait_any((self._changed, Deadline(until)))
            if not (self._changed.ready() or self._actions) and self._unanswered:
                op = next(iter(self._unanswered))
                raise UsageError(f"the replay is stuck: nobody answers request {op}")
