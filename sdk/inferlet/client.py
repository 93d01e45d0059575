"""Talking to the client and to the other inferlets of the same user."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from . import host


async def print(*values: object, end: str = "\n", error: bool = False) -> None:
    """Write to stdout, or stderr, at once; waits for a slow client."""
    await host.write("stderr" if error else "stdout", " ".join(map(str, values)) + end)


async def send(message: str) -> None:
    """Send a message to the client; waits for a slow one."""
    await host.send(message)


async def receive() -> str:
    """The client's next message."""
    result = await host.receive()
    message: str = await _settled(result, host.receive_pollable, host.receive_get)
    return message


async def send_blob(data: bytes) -> None:
    """Send bytes to the client."""
    await host.send_blob(await host.new_blob(data))


async def receive_blob() -> bytes:
    """The client's next blob."""
    result = await host.receive_blob()
    blob = await _settled(result, host.blob_pollable, host.blob_get)
    data: bytes = await host.blob_read(blob, 0, await host.blob_size(blob))
    host.drop(blob)
    return data


async def set_return(text: str) -> None:
    """The result of the inferlet, if `main` returns None; the last call counts."""
    await host.set_return(text)


async def broadcast(topic: str, message: str) -> None:
    """Send to everyone who is subscribed now; never waits."""
    await host.broadcast(topic, message)


@dataclass(eq=False)
class Subscription:
    """Messages of a topic from now on; iterate, or ask for the `next` one. For one strand."""

    _handle: Any
    _waiting: bool = False
    _closed: bool = False

    async def next(self) -> str | None:
        """The next message; None when the subscription is closed, also while this waits."""
        while not self._closed:
            self._waiting = True
            try:
                await host.ready(await host.subscription_pollable(self._handle))
            finally:
                self._waiting = False
                self._drop_if_closed()
            if not self._closed:
                message: str | None = await host.subscription_get(self._handle)
                if message is not None:
                    return message
        return None

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> str:
        message = await self.next()
        if message is None:
            raise StopAsyncIteration
        return message

    async def close(self) -> None:
        """Unsubscribe; whoever waits for the next message wakes up (contract X5)."""
        if not self._closed:
            await host.unsubscribe(self._handle)
            self._closed = True
            self._drop_if_closed()

    def _drop_if_closed(self) -> None:
        # A pollable must be dropped before what it came from.
        if self._closed and not self._waiting:
            host.drop(self._handle)


async def subscribe(topic: str) -> Subscription:
    """Subscribe to a topic among the inferlets of this user."""
    return Subscription(await host.subscribe(topic))


async def _settled(
    result: Any, pollable: Callable[..., Awaitable[Any]], get: Callable[..., Awaitable[Any]]
) -> Any:
    try:
        await host.ready(await pollable(result))
        return await get(result)
    finally:
        host.drop(result)
