"""`pie serve` comes to its end when it is told to, whatever goes on, and everybody is told."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from pie.server.server import GOING_AWAY, SHUTTING_DOWN

from .processes import SERVES, ServeProcess, half_uploaded, make_home, pie_serve, uploaded
from .raw import Frame, RawClient, launched, raw_client

pytestmark = pytest.mark.slow

BRIEF = "[server]\ngrace_seconds = 3.0\n"
LONG = "[server]\ngrace_seconds = 1000.0\n"


async def test_under_load_everybody_is_told_and_what_can_end_does(tmp_path: Path) -> None:
    async with pie_serve(make_home(tmp_path, BRIEF)) as server, AsyncExitStack() as stack:
        await server.logged(SERVES)

        async def client(user: str | None = "u") -> RawClient:
            return await stack.enter_async_context(raw_client(server.port, user))

        first = await client()
        program = await uploaded(first)
        stranger, silent = await client(None), await client()
        ends, waits, spins = [await launched(first, program, m) for m in ("echo", "wait", "spin")]
        assert await first.heard(waits) == ("MESSAGE", "waiting")
        assert await first.heard(spins) == ("MESSAGE", "spinning")
        await launched(first, program, "wait", detached=True)
        await launched(first, program, "spin", detached=True)
        await launched(silent, program, "flood")
        uploads = await client()
        await half_uploaded(uploads)
        assert (await uploads.ask("ping"))["successful"]

        server.signal(signal.SIGTERM)

        for each in (first, stranger, uploads):
            notice = await each.take(is_notice)
            assert notice["message"] == f"{SHUTTING_DOWN}: instances may go on for 3 s"
        refused = await uploads.ask("launch_instance", program_hash=program, arguments=["wait"])
        assert (refused["successful"], refused["message"]) == (False, SHUTTING_DOWN)
        with pytest.raises(OSError, match="attempts to connect"):
            await trio.open_tcp_stream("127.0.0.1", server.port)
        await first.tell(ends, "still served")
        assert await first.heard(ends) == ("MESSAGE", "echo still served")
        await first.tell(ends, "quit")
        assert await first.heard(ends) == ("COMPLETED", "1 messages")
        for uuid in (waits, spins):
            assert await first.heard(uuid) == ("ABORTED", SHUTTING_DOWN)
        for each in (first, stranger, uploads):
            closed = await each.drain()
            assert (closed.code, closed.reason) == (GOING_AWAY, SHUTTING_DOWN)
        assert await server.ended() == 0
        well(server)


async def test_a_second_signal_waits_for_nobody(tmp_path: Path) -> None:
    async with pie_serve(make_home(tmp_path, LONG)) as server:
        await server.logged(SERVES)
        async with raw_client(server.port) as client, raw_client(server.port) as silent:
            program = await uploaded(client)
            await launched(client, program, "wait")
            await launched(client, program, "spin")
            await launched(silent, program, "flood")
            server.signal(signal.SIGTERM)
            await client.take(is_notice)
            server.signal(signal.SIGTERM)
            await client.drain()
            assert await server.ended() == 0
    assert "a second signal" in server.log
    well(server)


async def test_while_it_loads_its_model(tmp_path: Path) -> None:
    async with pie_serve(make_home(tmp_path)) as server:
        await server.logged("loading ")
        server.signal(signal.SIGTERM)
        assert await server.ended() == 0
    assert SERVES not in server.log
    well(server)


async def test_with_nobody_there(tmp_path: Path) -> None:
    async with pie_serve(make_home(tmp_path, LONG)) as server:
        await server.logged(SERVES)
        server.signal(signal.SIGINT)
        assert await server.ended() == 0
    well(server)


def is_notice(frame: Frame) -> bool:
    return bool(frame["type"] == "server_event")


def well(server: ServeProcess) -> None:
    """Nothing in its log is about a bug of ours."""
    assert "Traceback" not in server.log
    assert " ERROR " not in server.log
