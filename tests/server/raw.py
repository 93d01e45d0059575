"""A WebSocket client that sends whatever it is told to, and reads only when it is asked to."""

from __future__ import annotations

import itertools
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias

import attrs
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Request,
    TextMessage,
)

from pie.ids import EventCode

from .wire import packed, unpacked

Frame: TypeAlias = dict[str, Any]
Wanted: TypeAlias = Callable[[Frame], bool]

PATIENCE_SECONDS = 60.0
"""Without a word from a server that should say something: then it hangs."""


class Closed(Exception):
    """The connection has ended: by the server with a code, or with None, without a goodbye."""

    def __init__(self, code: int | None, reason: str | None) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason or ""


@attrs.define(eq=False)
class RawClient:
    """One connection. What comes is kept until somebody takes it, whatever was asked for first."""

    stream: trio.SocketStream
    inbox: deque[Frame] = attrs.field(factory=deque)
    closed: Closed | None = None
    _wire: WSConnection = attrs.field(factory=lambda: WSConnection(ConnectionType.CLIENT))
    _numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))
    _partial: bytearray = attrs.field(factory=bytearray)
    _accepted: bool = False

    async def open(self) -> None:
        """Shake hands."""
        await self._send(Request(host="127.0.0.1", target="/"))
        while not self._accepted:
            await self._read()

    # ------------------------------------------------------------------ sending

    def number(self) -> int:
        """A `corr_id` that was not used before."""
        return next(self._numbers)

    async def post(self, type: str, **fields: object) -> int:
        """Send a request and do not wait; its `corr_id`."""
        corr_id = self.number()
        await self.request(type, corr_id=corr_id, **fields)
        return corr_id

    async def request(self, type: str, **fields: object) -> None:
        await self.send(packed(type=type, **fields))

    async def ask(self, type: str, **fields: object) -> Frame:
        """Send a request; its first reply."""
        return await self.answer(await self.post(type, **fields))

    async def tell(self, uuid: str, text: str) -> None:
        """Send a message to an instance."""
        await self.request("signal_instance", instance_id=uuid, message=text)

    async def send(self, data: bytes | str) -> None:
        """Send one message as it is."""
        event = TextMessage(data) if isinstance(data, str) else BytesMessage(data)
        await self._send(event)

    async def _send(self, event: Event) -> None:
        await self.stream.send_all(self._wire.send(event))

    # ------------------------------------------------------------------ reading

    async def answer(self, corr_id: int) -> Frame:
        return await self.take(lambda frame: frame.get("corr_id") == corr_id)

    async def take(self, wanted: Wanted = lambda frame: True) -> Frame:
        """The first message that is wanted; the others stay. Closed if there is none."""
        seen = 0
        with trio.fail_after(PATIENCE_SECONDS):
            while True:
                for index in range(seen, len(self.inbox)):
                    if wanted(frame := self.inbox[index]):
                        del self.inbox[index]
                        return frame
                seen = len(self.inbox)
                await self._read()

    async def drain(self) -> Closed:
        """Read until the server ends it; what came is in the inbox."""
        with trio.fail_after(PATIENCE_SECONDS):
            while self.closed is None:
                try:
                    await self._read()
                except Closed:
                    break
        assert self.closed is not None
        return self.closed

    async def heard(self, uuid: str) -> tuple[str, Any]:
        """The next that an instance says: Stdout, Stderr or an event's name, and the text."""
        kinds = ("instance_event", "streaming_output")
        frame = await self.take(
            lambda frame: frame["type"] in kinds and frame["instance_id"] == uuid
        )
        if frame["type"] == "streaming_output":
            ((stream, text),) = frame["output"].items()
            return stream, text
        return EventCode(frame["event"]).name, frame["message"]

    async def to_the_end(self, uuid: str) -> list[tuple[str, Any]]:
        """All that an instance says from now on; the last is its terminal event."""
        said = [await self.heard(uuid)]
        while said[-1][0] in ("Stdout", "Stderr", "MESSAGE"):
            said.append(await self.heard(uuid))
        return said

    async def _read(self) -> None:
        if self.closed is not None:
            raise self.closed
        try:
            data = await self.stream.receive_some(1 << 16)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if not data:
            self.closed = Closed(None, None)
            return
        self._wire.receive_data(bytes(data))
        for event in self._wire.events():
            await self._take_event(event)

    async def _take_event(self, event: Event) -> None:
        match event:
            case AcceptConnection():
                self._accepted = True
            case BytesMessage(data=data, message_finished=finished):
                self._partial += data
                if finished:
                    self.inbox.append(unpacked(bytes(self._partial)))
                    self._partial.clear()
            case CloseConnection(code=code, reason=reason):
                self.closed = Closed(int(code), reason)
                with suppress(trio.BrokenResourceError):  # it may have closed the socket, too
                    await self._send(event.response())
            case Ping():
                await self._send(event.response())
            case _:
                raise AssertionError(f"the server has sent {event!r}")

    # ------------------------------------------------------------------ leaving

    async def leave(self) -> None:
        """Say goodbye, and read what the server says until it has heard it."""
        await self._send(CloseConnection(code=1000))
        await self.drain()

    async def vanish(self) -> None:
        """Be gone from one moment to the next, as if killed; what is on its way here is lost."""
        linger = struct.pack("ii", 1, 0)
        self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await trio.aclose_forcefully(self.stream)


@asynccontextmanager
async def raw_client(port: int, user: str | None = "u") -> AsyncIterator[RawClient]:
    """A connected client, logged in where names are not proven unless `user` is None."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        client = RawClient(stream)
        await client.open()
        if user is not None:
            reply = await client.ask("identification", username=user)
            assert reply["successful"], reply
        yield client


async def launched(client: RawClient, program: str, *words: str, detached: bool = False) -> str:
    """Launch an instance of the program with this hash; its id."""
    reply = await client.ask(
        "launch_instance", program_hash=program, arguments=list(words), detached=detached
    )
    assert reply["successful"], reply["message"]
    return str(reply["message"])


async def statuses(client: RawClient) -> dict[str, str]:
    """Of the user's instances, by id."""
    reply = await client.ask("list_instances")
    return {entry["id"]: entry["status"] for entry in reply["instances"]}
