"""What a connection has received and its session has not dealt with yet: bounded, for each user."""

from __future__ import annotations

from collections import deque
from typing import Any

import attrs
import trio

from .frames import CHUNK
from .uploads import Budget

RECEIVE_BYTES = 4 << 20
"""A WebSocket message from a client: a larger one closes the connection with code 1009."""
STRANGER_BYTES = 64 << 10
"""The same before the client has authenticated."""
FREE = CHUNK + STRANGER_BYTES
"""Bytes of a message that count for nothing: a chunk of an upload is never too much."""
_LINGER_SECONDS = 1.0
"""For so long a client that has been sent away is read from, and not listened to: closing while
there are unread bytes takes from the client what was said to it last."""
_KEY = "pie.inflow"


@attrs.define(eq=False)
class Inflow:
    """Shared by a connection and the session behind it, past the application between them."""

    leaving: bool = False
    """The client has said goodbye, or is gone: what is sent from now on does not arrive."""
    cut: bool = False
    """Something could not be sent."""
    finished: bool = False
    """The session has ended, or is about to: what comes now is for nobody."""
    reading: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Around reading from the client."""
    _max_bytes: int = STRANGER_BYTES
    _budget: Budget = attrs.field(factory=lambda: Budget(0))
    _arriving: int = 0
    _complete: deque[int] = attrs.field(factory=deque)
    """Sizes of the messages that the session has, or will have, oldest first."""

    def scope_state(self) -> dict[str, object]:
        """To be the state of an ASGI scope."""
        return {_KEY: self}

    @staticmethod
    def of(scope: Any) -> Inflow:
        """The one in the state of a scope; one of its own where another server serves it."""
        found = scope.setdefault("state", {}).setdefault(_KEY, Inflow())
        assert isinstance(found, Inflow)
        return found

    def trust(self, budget: Budget) -> None:
        """The client has authenticated; `budget` is its user's, over all connections."""
        self._max_bytes, self._budget = RECEIVE_BYTES, budget

    def arrives(self, size: int) -> str | None:
        """So much more of a message is here. Why that is too much, or None."""
        more = self._arriving + size
        if more > self._max_bytes:
            return f"a message of more than {self._max_bytes} bytes"
        if not self._budget.take(_counted(more) - _counted(self._arriving)):
            return f"{self._budget.held} bytes of this user's long messages wait already"
        self._arriving = more
        return None

    def completes(self) -> None:
        """The message is whole, and goes to the session."""
        self._complete.append(self._arriving)
        self._arriving = 0

    def dealt_with(self) -> None:
        """The session needs its oldest message no more."""
        if not self._complete:
            return  # another server's, which counts its messages itself
        self._budget.give_back(_counted(self._complete.popleft()))

    def finish(self) -> None:
        """The client has been sent away, or has left."""
        self.leaving = self.finished = True
        self.reading.deadline = min(self.reading.deadline, trio.current_time() + _LINGER_SECONDS)

    def close(self) -> None:
        """The connection is over."""
        for size in (self._arriving, *self._complete):
            self._budget.give_back(_counted(size))
        self._arriving = 0
        self._complete.clear()


def _counted(size: int) -> int:
    return max(0, size - FREE)
