"""What a session needs of a WebSocket."""

from __future__ import annotations

from typing import Protocol

from .uploads import Budget


class Gone(Exception):
    """The client has left: nothing can be sent any more, and nothing comes after what was read."""


class Transport(Protocol):
    """One connection; messages arrive and leave whole."""

    @property
    def peer(self) -> str:
        """Where the client is, for the log."""
        ...

    async def receive(self) -> bytes | str:
        """The next message; raises Gone after the last."""
        ...

    async def send(self, data: bytes, /) -> None:
        """Send a message; waits for a slow client. One call at a time. Raises Gone."""
        ...

    def trust(self, budget: Budget, /) -> None:
        """The client has authenticated: its messages may be long, within its user's budget."""
        ...

    async def close(self, code: int, reason: str, /) -> None:
        """Say goodbye, with a WebSocket close code (RFC 6455, section 7.4)."""
        ...
