"""Sends a client what one of its instances says, until that ends or the client leaves."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeAlias

import attrs
import trio

from pie.messages import BlobSent, ClientItem, Output
from pie.offload import Offload
from pie.outbox import Dropped

from .frames import ServerFrame
from .instances import Hosted, Instances
from .output import hash_of, merge
from .transport import Gone

Send: TypeAlias = Callable[[ServerFrame], Awaitable[None]]

_HASHED_AT_ONCE = 1 << 20
"""Bytes of a blob whose hash takes no more than a fraction of a millisecond."""


@attrs.frozen(eq=False)
class Follower:
    """A client, as far as it hears of instances."""

    _instances: Instances
    _send: Send
    """Raises Gone when the client has left."""
    _offload: Offload
    _one_blob: trio.Lock = attrs.field(factory=trio.Lock)
    """The published client takes two blobs of the same content at a time for one."""

    async def follow(self, hosted: Hosted, reply: ServerFrame) -> None:
        """Attach to the instance, send the reply and then what comes of it.

        What has not been sent whole when the client leaves stays with the instance. UsageError,
        and nothing sent, if another session follows it.
        """
        with self._instances.attach(hosted) as dropped:
            try:
                await self._send(reply)
                if dropped.items:
                    hosted.frames.gap()
                    await self._send_all(hosted.frames.of(notice(dropped)))
                while batch := await hosted.outbox.batch():
                    await self._deliver(hosted, deque(merge(batch)))
            except Gone:
                return  # the session hears of it where it reads

    async def _deliver(self, hosted: Hosted, items: deque[ClientItem]) -> None:
        try:
            while items:
                with hosted.frames.undone_on_error():
                    await self._send_item(hosted, items[0])
                items.popleft()
        finally:
            hosted.outbox.unread(*items)

    async def _send_item(self, hosted: Hosted, item: ClientItem) -> None:
        if not isinstance(item, BlobSent):
            await self._send_all(hosted.frames.of(item))
            return
        large = item.size > _HASHED_AT_ONCE
        key = await self._offload(hash_of, item.data) if large else hash_of(item.data)
        async with self._one_blob:
            await self._send_all(hosted.frames.of(item, key))

    async def _send_all(self, frames: Iterator[ServerFrame]) -> None:
        for frame in frames:
            await self._send(frame)


def notice(dropped: Dropped) -> Output:
    """What a client is told that has missed something."""
    text = f"[pie: {dropped.items} pieces of output, {dropped.bytes} bytes, came while no client "
    return Output("stderr", f"{text}was attached and were dropped]\n".encode())
