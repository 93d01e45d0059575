"""HTTP/1.1 of a connection, and the frames of its WebSocket, read in turns with all others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import h11
import trio
from hypercorn.events import Closed
from hypercorn.protocol.events import Data
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WSStream
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Event, Message, Ping
from wsproto.frame_protocol import CloseReason

from pie.guest.turns import Turns

from .inflow import Inflow

TURN_SECONDS = 0.002
"""What all connections together may parse in one pass of the loop."""
_SLICE_SECONDS = 0.0005
"""What one may parse in its turn: some dozens of frames, or 64 KiB of one."""


class PlainProtocol(H11Protocol):
    """HTTP/1.1 and WebSockets that are never compressed, and no HTTP/2.

    A compressing connection takes 300 KiB more of memory, and a few hundred bytes of it may stand
    for megabytes. Parsing a frame takes the same time for one byte as for thousands, so what one
    read of a socket gives may be work for a fifth of a second: it is done in slices.
    """

    def __init__(
        self,
        *arguments: Any,
        inflow: Inflow,
        turns: Turns,
        line: trio.StrictFIFOLock,
        begun: Callable[[], None],
    ) -> None:
        """`begun` is called at each request, which first waits in `line`."""
        super().__init__(*arguments)
        self._inflow = inflow
        self._turns = turns
        self._line = line
        self._begun = begun
        self._unreadable = False

    async def _check_protocol(self, event: h11.Request) -> None:
        """Not at all: HTTP/2 would go past what is here."""

    async def _create_stream(self, request: h11.Request) -> None:
        self._begun()
        if _has_body(request):  # which nobody would read
            await self._send_error_response(413)
            await self.send(Closed())
            return
        headers = [h for h in request.headers if h[0].lower() != b"sec-websocket-extensions"]
        plain = h11.Request(
            method=request.method,
            target=request.target,
            headers=headers,
            http_version=request.http_version,
        )
        async with self._line:
            pass
        await super()._create_stream(plain)

    async def _handle_events(self) -> None:
        if isinstance(self.stream, WSStream) and self.stream.handshake.accepted:
            await self._take_frames(self.stream)
        else:
            await super()._handle_events()

    async def _take_frames(self, stream: WSStream) -> None:
        data = self.connection.next_event()
        if self._unreadable or stream.closed:
            return
        assert isinstance(data, Data)
        stream.connection.receive_data(data.data)
        events = stream.connection.events()
        while True:
            async with self._turns:
                slice_ = list(_for_a_while(events))
            if not slice_:
                return
            if isinstance(slice_[-1], CloseConnection):
                self._inflow.leaving = True  # from now on wsproto throws away what is sent
            for event in slice_:
                await self._take_event(stream, event)

    async def _take_event(self, stream: WSStream, event: Event) -> None:
        if isinstance(event, CloseConnection):
            await self._take_close(stream, event)
        elif self._inflow.finished:
            pass
        elif isinstance(event, Message):
            await self._take_part(stream, event)
        elif isinstance(event, Ping):
            await stream._send_wsproto_event(event.response())

    async def _take_part(self, stream: WSStream, part: Message[Any]) -> None:
        excess = self._inflow.arrives(len(part.data))
        if excess is not None:
            stream.buffer.clear()
            await self._send_away(stream, CloseReason.MESSAGE_TOO_BIG, excess)
            return
        stream.buffer.extend(part)
        if part.message_finished:
            message = stream.buffer.to_message()
            stream.buffer.clear()
            self._inflow.completes()
            assert stream.app_put is not None
            await stream.app_put(message)

    async def _take_close(self, stream: WSStream, event: CloseConnection) -> None:
        """The client says goodbye, or answers ours, or what it sends are no frames."""
        match stream.connection.state:
            case ConnectionState.OPEN:
                self._unreadable = True
                await self._send_away(stream, event.code, event.reason or "")
            case ConnectionState.REMOTE_CLOSING:
                self._inflow.finish()
                await stream._send_wsproto_event(event.response())
                self._inflow.reading.cancel()
            case _:
                self._inflow.reading.cancel()

    async def _send_away(self, stream: WSStream, code: int, reason: str) -> None:
        self._inflow.finish()
        await stream._send_wsproto_event(CloseConnection(code=code, reason=reason))


def _has_body(request: h11.Request) -> bool:
    headers = dict(request.headers)
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


def _for_a_while(events: Iterator[Event]) -> Iterator[Event]:
    until = time.perf_counter() + _SLICE_SECONDS
    for event in events:
        yield event
        if time.perf_counter() > until:
            return
