"""Sockets: Hypercorn's connections on our own listeners, so that a stuck one can be given up."""

from __future__ import annotations

import logging
import socket
import ssl
from pathlib import Path
from typing import Any

import attrs
import h11
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState
from hypercorn.utils import wrap_app

from pie.errors import UsageError

from .config import ServerConfig

log = logging.getLogger(__name__)

RECEIVE_BYTES = 4 << 20
"""A WebSocket message from a client: a larger one closes the connection with code 1009."""
_KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4}
"""Seconds of silence until the system asks whether a client is still there, between two times that
it asks, and how often. Hypercorn's own pings would keep the task of each closed connection."""
_CLOSING_SECONDS = 5.0
"""At the end: how long connections may take to say goodbye."""
_BACKLOG = 1024


class PlainProtocol(H11Protocol):
    """HTTP/1.1 whose WebSockets are never compressed.

    A compressing connection takes 300 KiB more of memory, and a few hundred bytes of it may stand
    for megabytes.
    """

    @classmethod
    def instead_of(cls, other: H11Protocol) -> PlainProtocol:
        """The same connection, before its first request."""
        return cls(
            other.app,
            other.config,
            other.context,
            other.task_group,
            other.connection_state,
            other.ssl,
            other.client,
            other.server,
            other.send,
        )

    async def _create_stream(self, request: h11.Request) -> None:
        headers = [h for h in request.headers if h[0].lower() != b"sec-websocket-extensions"]
        plain = h11.Request(
            method=request.method,
            target=request.target,
            headers=headers,
            http_version=request.http_version,
        )
        await super()._create_stream(plain)


class Connection(TCPServer):
    """A connection of Hypercorn that gives up when its client takes nothing for too long.

    Hypercorn shields what it sends, so a client that does not read could hold up the end of the
    server for ever.
    """

    def __init__(self, *arguments: Any, stall_seconds: float) -> None:
        super().__init__(*arguments)
        self._stall_seconds = stall_seconds
        self._sending: trio.CancelScope | None = None

    async def protocol_send(self, event: Event) -> None:
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        async with self.send_lock:
            # Cancelled in the middle, a message would be cut and the next one misread.
            deadline = trio.current_time() + self._stall_seconds
            with trio.CancelScope(shield=True, deadline=deadline) as self._sending:
                try:
                    await self.stream.send_all(event.data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self._sending.cancel()
            broken = self._sending.cancel_called
        if broken:
            await trio.aclose_forcefully(self.stream)
            await self.protocol.handle(Closed())

    async def _read_data(self) -> None:
        if isinstance(self.protocol.protocol, H11Protocol):  # with TLS it may be HTTP/2
            self.protocol.protocol = PlainProtocol.instead_of(self.protocol.protocol)
        await super()._read_data()

    def hurry(self, deadline: float) -> None:
        """What is being sent now may take until `deadline`."""
        self._stall_seconds = max(0.0, deadline - trio.current_time())
        if self._sending is not None:
            self._sending.deadline = min(self._sending.deadline, deadline)


@attrs.define(eq=False)
class Listeners:
    """Bound sockets, and the connections that have come through them."""

    port: int
    _config: ServerConfig
    _sockets: list[trio.SocketListener]
    _ssl: ssl.SSLContext | None
    _connections: set[Connection] = attrs.field(factory=set)
    _accepting: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _finishing: trio.Event = attrs.field(factory=trio.Event)

    async def serve(
        self,
        app: ASGIFramework,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve `app` until `finish`."""
        hypercorn = HypercornConfig()
        hypercorn.websocket_max_message_size = RECEIVE_BYTES
        hypercorn.errorlog = log
        wrapped, context = wrap_app(app, hypercorn.wsgi_max_body_size, "asgi"), WorkerContext(None)

        async def serve_connection(stream: Any) -> None:
            state = ConnectionState({})
            connection = Connection(
                wrapped, hypercorn, context, state, stream, stall_seconds=self._config.stall_seconds
            )
            self._connections.add(connection)
            try:
                await connection
            except Exception:  # the boundary where a bug ends one connection
                log.exception("bug in a connection")
            finally:
                self._connections.discard(connection)

        async with trio.open_nursery() as connections:
            with self._accepting:
                task_status.started()
                await trio.serve_listeners(
                    serve_connection, self._streams(), handler_nursery=connections
                )
            await self._finishing.wait()
            await context.terminated.set()
            deadline = trio.current_time() + _CLOSING_SECONDS
            connections.cancel_scope.deadline = deadline
            for connection in self._connections:
                connection.hurry(deadline)

    def stop_accepting(self) -> None:
        """Close the sockets; the connections that there are go on."""
        self._accepting.cancel()

    def finish(self) -> None:
        """Stop accepting, and let connections end: they have a few seconds for it."""
        self.stop_accepting()
        self._finishing.set()

    def _streams(self) -> list[Any]:
        if self._ssl is None:
            return list(self._sockets)
        return [trio.SSLListener(s, self._ssl, https_compatible=True) for s in self._sockets]


async def open_listeners(config: ServerConfig) -> Listeners:
    """Bind to the address of `config`. UsageError if that is not possible, or TLS is not."""
    context = _ssl_context(config.tls_certificate, config.tls_key)
    try:
        sockets = await trio.open_tcp_listeners(config.port, host=config.host, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot listen on {config.host}:{config.port}: {reason}") from error
    for listener in sockets:
        _notice_the_dead(listener.socket, config.stall_seconds)
    return Listeners(sockets[0].socket.getsockname()[1], config, sockets, context)


def _notice_the_dead(listener: trio.socket.SocketType, stall_seconds: float) -> None:
    """Let the system end accepted connections, which inherit this, whose client has gone."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    timeout = min(int(stall_seconds * 1000), 2**31 - 1)
    for name, value in {**_KEEP_ALIVE, "TCP_USER_TIMEOUT": timeout}.items():
        if hasattr(socket, name):  # not every system has every one
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _ssl_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"cannot use TLS certificate {certificate}, key {key}: {error}") from error
    return context
