"""The ASGI application: WebSocket sessions at any path, and pages for those who operate it."""

from __future__ import annotations

import hmac
import json
from contextlib import suppress
from typing import Any, cast

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, WebsocketScope
from quart import Response, Websocket, abort, request, websocket
from quart.asgi import ASGIWebsocketConnection
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIWebsocketConnection

from pie import __version__

from .config import Auth
from .counters import Refusal
from .inflow import Inflow
from .listing import listing
from .server import Server
from .session import Session
from .transport import Gone
from .uploads import Budget

_DISCONNECTED = "websocket.disconnect"


class WebsocketConnection(TrioASGIWebsocketConnection):
    """Lets a session read all that its client has sent, where Quart cancels it at the end.

    A client may send something that has no reply and leave at once. And the other way round: what
    a client sends when its session has ended is taken and thrown away, so that the connection can
    come to its end.
    """

    def __init__(self, app: QuartTrio, scope: WebsocketScope) -> None:
        super().__init__(app, scope)
        self._inflow = Inflow.of(scope)
        # What waits, waits in the client's own connection.
        self.send_channel, self.receive_channel = trio.open_memory_channel[bytes | str](0)

    async def handle_messages(  # type: ignore[override]  # as in quart_trio
        self, nursery: trio.Nursery, receive: ASGIReceiveCallable
    ) -> None:
        async with self.send_channel:
            while (event := cast(dict[str, Any], await receive()))["type"] != _DISCONNECTED:
                if event["type"] == "websocket.receive":
                    message = event.get("bytes")
                    with suppress(trio.BrokenResourceError):  # its session has ended
                        await self.send_channel.send(event["text"] if message is None else message)
            self._inflow.leaving = True

    async def handle_websocket(  # type: ignore[override]  # as in quart_trio
        self, nursery: trio.Nursery, websocket: Websocket, send: ASGISendCallable
    ) -> None:
        await ASGIWebsocketConnection.handle_websocket(self, websocket, send)
        self.receive_channel.close()
        if self._accepted:
            self._inflow.finish()
        else:
            nursery.cancel_scope.cancel()

    async def send_data(self, send: ASGISendCallable, data: str | bytes) -> None:
        if self._inflow.leaving or self._inflow.cut:
            raise Gone
        await send(cast(Any, {"type": "websocket.send", "bytes": data, "text": None}))
        if self._inflow.cut:
            raise Gone


class QuartTransport:
    """The WebSocket of the current context."""

    def __init__(self) -> None:
        self._websocket = websocket._get_current_object()  # type: ignore[attr-defined]
        self._inflow = Inflow.of(self._websocket.scope)
        self._has_one = False
        self.peer = ":".join(map(str, self._websocket.scope.get("client") or ("unknown",)))

    async def receive(self) -> bytes | str:
        if self._has_one:
            self._inflow.dealt_with()
        try:
            message = cast(bytes | str, await self._websocket.receive())
        except trio.EndOfChannel:
            raise Gone from None
        finally:
            self._has_one = False
        self._has_one = True
        return message

    def trust(self, budget: Budget) -> None:
        self._inflow.trust(budget)

    async def send(self, data: bytes) -> None:
        await self._websocket.send(data)

    async def close(self, code: int, reason: str) -> None:
        # A close frame holds 123 bytes of text.
        short = reason.encode()[:120].decode(errors="ignore")
        await self._websocket.close(code, short)


def make_app(server: Server) -> QuartTrio:
    """The application of a running server."""
    app = QuartTrio("pie")
    app.asgi_websocket_class = WebsocketConnection

    @app.websocket("/", defaults={"path": ""})
    @app.websocket("/<path:path>")
    async def serve_session(path: str) -> None:
        origin = websocket.headers.get("Origin")
        if origin is not None and origin not in server.config.allowed_origins:
            server.refused(Refusal.ALLOWED_ORIGINS)
            abort(403, "pages of other origins may not connect (allowed_origins)")
        if (reason := server.refuses_connections()) is not None:
            abort(503, reason)
        await websocket.accept()
        await Session(server, QuartTransport()).run()

    @app.get("/")
    async def about() -> Response:
        pages = "/healthz, /metrics, /v1/instances"
        text = f"pie {__version__}: clients connect by WebSocket; see {pages}\n"
        return Response(text, mimetype="text/plain")

    @app.get("/healthz")
    async def health() -> Response:
        report = server.report()
        body = json.dumps(report.body)
        return Response(body, 200 if report.healthy else 503, mimetype="application/json")

    @app.get("/metrics")
    async def metrics() -> Response:
        _check_token(server)
        accept = request.headers.get("Accept", "")
        text = await server.metrics.render(server.engine, server.state(), accept=accept)
        return Response(text, content_type=server.metrics.content_type(accept))

    @app.get("/v1/instances")
    async def instances() -> Response:
        _check_token(server)
        body, kind = listing(await server.rows(), request.headers.get("Accept", ""))
        return Response(body, content_type=kind)

    return app


def _check_token(server: Server) -> None:
    """Where clients have to prove who they are, so has whoever looks at them."""
    if server.authentication.mode is Auth.NONE:
        return
    expected = f"Bearer {server.authentication.token}"
    given = request.headers.get("Authorization", "")
    if not hmac.compare_digest(given.encode(), expected.encode()):
        abort(401, "the internal token is needed, as a bearer token")
