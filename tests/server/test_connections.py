"""Connections that end as they should not, or never were ones: nothing waits for them for ever."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import trio

from pie.server.authentication import Authentication
from pie.server.config import Auth
from pie.server.users import Users
from pie.server.users_edit import add_key

from .keys import openssh
from .live import Live, keep_probe, live_server
from .mischief import VIOLATIONS, beside, harmless, until
from .raw import PATIENCE_SECONDS, raw_client

pytestmark = pytest.mark.slow

MANY = 1000
"""Messages: more than wait between a connection and its session."""


def gone(live: Live) -> bool:
    """Whether nothing is left of any connection."""
    return not live.server.sessions and not live.serving._listeners._connections


async def test_a_client_that_vanishes_before_its_answers_is_noticed(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live:
        for _ in range(5):
            async with raw_client(live.port) as client:
                for _ in range(MANY):
                    await client.post("ping")
                await client.vanish()
        await until(lambda: gone(live))


async def test_who_goes_on_after_a_failed_login_is_sent_away(tmp_path: Path) -> None:
    add_key(tmp_path / "users", "ann", openssh("Ed25519"))
    authentication = Authentication(Auth.KEYS, Users(tmp_path / "users"))
    async with (
        live_server(tmp_path, authentication=authentication) as live,
        raw_client(live.port, None) as client,
    ):
        assert (await client.ask("identification", username="ann"))["successful"]
        refused = await client.post("signature", signature="AAAA")
        with suppress(trio.BrokenResourceError), trio.fail_after(PATIENCE_SECONDS):
            for _ in range(MANY):
                await client.post("query", subject="x" * 10_000, record="")
        assert (await client.answer(refused))["result"] == "Signature verification failed"
        assert (await client.drain()).code == 1008
        await until(lambda: gone(live))


async def test_what_no_websocket_may_do_ends_the_connection(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live:
        program = await keep_probe(live, "internal")
        async with beside(live, program):
            for data in VIOLATIONS:
                async with raw_client(live.port) as client:
                    with suppress(trio.BrokenResourceError):
                        await client.stream.send_all(data)
                    await client.drain()
        await until(lambda: gone(live))


async def test_whoever_speaks_something_else_is_turned_away(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live:
        program = await keep_probe(live, "internal")
        async with beside(live, program):
            for data in (
                b"\0" * 1000,
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
                b"GET / HTTP/1.1\r\nHost:",
                b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\n\r\n",
                b"GET /healthz HTTP/9.9\r\n\r\n",
                b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
                b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100),
            ):
                async with await trio.open_tcp_stream("127.0.0.1", live.port) as stream:
                    await stream.send_all(data)
                    await stream.send_eof()
                    with trio.fail_after(PATIENCE_SECONDS):
                        answer = b"".join([piece async for piece in stream])
                    harmless(answer.decode(errors="replace"), tmp_path)
