"""Sockets: Hypercorn's connections on our own listeners, so that a stuck one can be given up."""

from __future__ import annotations

import logging
import socket
import ssl
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, Event, RawData
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState
from hypercorn.utils import wrap_app

from pie.errors import UsageError
from pie.guest.turns import Turns

from .config import ServerConfig
from .inflow import RECEIVE_BYTES, Inflow
from .locking import acquire
from .websocket import TURN_SECONDS, PlainProtocol

log = logging.getLogger(__name__)

_KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4}
"""Seconds of silence until the system asks whether a client is still there, between two times that
it asks, and how often. Hypercorn's own pings would keep the task of each closed connection."""
_CLOSING_SECONDS = 5.0
"""At the end: how long connections may take to say goodbye."""
_BACKLOG = 1024
_READ_BYTES = 64 << 10
_QUEUE = 2
"""Events that wait for the application: all that there are of a page, and few messages."""


@attrs.define(eq=False)
class Shared:
    """What the connections of a server share."""

    turns: Turns = attrs.field(factory=lambda: Turns(TURN_SECONDS))
    line: trio.StrictFIFOLock = attrs.field(factory=trio.StrictFIFOLock)
    """Of those that are about to do what takes half a millisecond, in pieces: to begin a request,
    and to end. One is let through in a pass of the loop, or a thousand that come or go at once
    would make each pass a long one."""
    silent: OrderedDict[Connection, None] = attrs.field(factory=OrderedDict)
    """Those that have not begun a request, oldest first."""


class Connection(TCPServer):
    """A connection of Hypercorn that gives up when its client takes nothing for too long.

    Hypercorn shields what it sends, so a client that does not read could hold up the end of the
    server for ever.
    """

    def __init__(
        self, *arguments: Any, inflow: Inflow, shared: Shared, stall_seconds: float
    ) -> None:
        super().__init__(*arguments)
        self.scope = trio.CancelScope()
        self._inflow = inflow
        self._shared = shared
        self._stall_seconds = stall_seconds
        self._sending: trio.CancelScope | None = None

    async def protocol_send(self, event: Event) -> None:
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        await acquire(self.send_lock)
        try:
            # Cancelled in the middle, a message would be cut and the next one misread.
            deadline = trio.current_time() + self._stall_seconds
            with trio.CancelScope(shield=True, deadline=deadline) as self._sending:
                try:
                    await self.stream.send_all(event.data)
                except (
                    trio.BrokenResourceError,
                    trio.ClosedResourceError,
                    trio.BusyResourceError,  # it is being closed just now
                ):
                    self._sending.cancel()
            broken = self._sending.cancel_called
        finally:
            self.send_lock.release()
        if broken:
            # Who reads from the stream sees its end and tells the application. Here that could
            # wait for ever: for room for the news, which a session makes when it has sent this.
            self._inflow.cut = True
            await trio.aclose_forcefully(self.stream)

    async def _read_data(self) -> None:
        protocol = self._plain()
        try:
            with self._inflow.reading:
                while data := await self.stream.receive_some(_READ_BYTES):
                    await protocol.handle(RawData(bytes(data)))
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            pass  # as good as its end
        self._inflow.finish()
        async with self._shared.line:
            pass
        await self._close()
        await self.protocol.handle(Closed())

    def _plain(self) -> PlainProtocol:
        other = self.protocol.protocol
        plain = PlainProtocol(
            other.app,
            other.config,
            other.context,
            other.task_group,
            other.connection_state,
            other.ssl,
            other.client,
            other.server,
            other.send,
            inflow=self._inflow,
            turns=self._shared.turns,
            line=self._shared.line,
            begun=partial(self._shared.silent.pop, self, None),
        )
        self.protocol.protocol = plain
        return plain

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
    _shared: Shared = attrs.field(factory=Shared)
    _accepting: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _finishing: trio.Event = attrs.field(factory=trio.Event)

    async def serve(
        self,
        app: ASGIFramework,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve `app` until `finish`."""
        hypercorn = _hypercorn(self._config)
        wrapped, context = wrap_app(app, hypercorn.wsgi_max_body_size, "asgi"), WorkerContext(None)

        async def serve_connection(stream: Any) -> None:
            inflow = Inflow()
            connection = Connection(
                wrapped,
                hypercorn,
                context,
                ConnectionState(inflow.scope_state()),
                stream,
                inflow=inflow,
                shared=self._shared,
                stall_seconds=self._config.stall_seconds,
            )
            try:
                with connection.scope, self._admitted(connection):
                    await connection
            except Exception:  # the boundary where a bug ends one connection
                log.exception("bug in a connection")
            finally:
                inflow.close()

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

    @contextmanager
    def _admitted(self, connection: Connection) -> Iterator[None]:
        """It is there for the duration; until its first request it may be closed for others."""
        silent = self._shared.silent
        if len(silent) >= self._config.max_unauthenticated:
            oldest, _ = silent.popitem(last=False)
            oldest.scope.cancel()
        silent[connection] = None
        self._connections.add(connection)
        try:
            yield
        finally:
            self._connections.discard(connection)
            silent.pop(connection, None)

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


def _hypercorn(config: ServerConfig) -> HypercornConfig:
    hypercorn = HypercornConfig()
    hypercorn.websocket_max_message_size = RECEIVE_BYTES
    hypercorn.ssl_handshake_timeout = config.login_seconds
    hypercorn.max_app_queue_size = _QUEUE
    hypercorn.errorlog = log
    return hypercorn


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
