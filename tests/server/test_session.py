"""Sessions in virtual time: deadlines, rates, and what becomes of clients that break the rules."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import trio
from blake3 import blake3

from benchmarks.server.clients import GUEST
from pie.server.config import Quotas, ServerConfig
from pie.server.server import GOING_AWAY, TRY_AGAIN_LATER
from pie.server.session import INVALID_DATA, POLICY_VIOLATION

from .pair import RETURNS, Peer, component, server_in_memory


async def test_who_does_not_log_in_is_sent_away(tmp_path: Path) -> None:
    async with server_in_memory(tmp_path, config=ServerConfig(login_seconds=3.0)) as pair:
        began = trio.current_time()
        code, reason = await pair.connect().goodbye()

        assert (code, reason) == (POLICY_VIOLATION, "not authenticated within 3 s")
        assert trio.current_time() - began == pytest.approx(3.0, abs=0.1)
        assert not pair.server.sessions


async def test_nothing_is_done_before_a_login(tmp_path: Path) -> None:
    """Each request is answered as its kind is, and the client may still log in."""
    async with server_in_memory(tmp_path) as pair:
        peer = pair.connect()
        assert not (await peer.ask("ping"))["successful"]
        launched = await peer.ask("launch_instance", program_hash="0" * 64, arguments=[])
        assert launched["type"] == "instance_launch_result"
        assert "Not authenticated" in launched["message"]
        await peer.log_in()
        assert (await peer.ask("ping"))["result"] == "Pong"


async def test_sixteen_unreadable_messages_end_a_connection(tmp_path: Path) -> None:
    async with server_in_memory(tmp_path) as pair:
        peer = pair.connect()
        await peer.log_in()
        for _ in range(15):
            peer.tell_raw(b"\xc1")
        assert (await peer.ask("ping"))["result"] == "Pong"  # and begins the count anew
        for _ in range(15):
            peer.tell_raw("text")
        peer.tell_raw(b"")

        code, reason = await peer.goodbye()

        assert code == INVALID_DATA
        assert reason.startswith("16 messages could not be read")
        assert pair.server.metrics.counters.protocol_errors == 31


async def test_the_oldest_stranger_makes_room(tmp_path: Path) -> None:
    async with server_in_memory(tmp_path, config=ServerConfig(max_unauthenticated=2)) as pair:
        known = pair.connect()
        await known.log_in()
        strangers = []
        for _ in range(3):
            strangers.append(pair.connect())
            await trio.testing.wait_all_tasks_blocked()

        assert (await strangers[0].goodbye())[0] == TRY_AGAIN_LATER
        assert [peer.transport.closed for peer in strangers[1:]] == [None, None]
        assert (await known.ask("ping"))["successful"]


async def test_a_user_has_so_many_connections(tmp_path: Path) -> None:
    quotas = Quotas(connections=2)
    async with server_in_memory(tmp_path, config=ServerConfig(quotas=quotas)) as pair:
        peers = [pair.connect() for _ in range(3)]
        for peer in peers[:2]:
            await peer.log_in()
        reply = await peers[2].ask("identification", username="u")
        assert not reply["successful"]
        assert "connections" in reply["result"]
        await peers[2].goodbye()

        peers[0].leave()
        await trio.testing.wait_all_tasks_blocked()
        await pair.connect().log_in()


async def test_requests_beyond_the_rate_are_refused_and_messages_wait(tmp_path: Path) -> None:
    quotas = Quotas(messages_per_second=10, message_burst=5)
    async with server_in_memory(tmp_path, config=ServerConfig(quotas=quotas)) as pair:
        peer = pair.connect()
        await peer.log_in()
        replies = [await peer.ask("ping") for _ in range(6)]
        assert [reply["successful"] for reply in replies] == [True] * 5 + [False]
        assert "messages_per_second" in replies[5]["result"]

        began = trio.current_time()
        for _ in range(20):
            peer.tell("signal_instance", instance_id="nobody", message="hello")
        for _ in range(20):
            assert "Instance not found" in (await peer.hear())["message"]
        assert trio.current_time() - began == pytest.approx(2.0, abs=0.2)


async def test_launches_beyond_the_rate_are_refused(tmp_path: Path) -> None:
    quotas = Quotas(launches_per_minute=10)
    async with server_in_memory(tmp_path, config=ServerConfig(quotas=quotas)) as pair:
        name = await pair.keep(RETURNS)
        peer = pair.connect()
        await peer.log_in()
        assert (await peer.ask("launch_instance", program_hash=name))["successful"]
        refused = await peer.ask("launch_instance", program_hash=name)
        assert refused["type"] == "instance_launch_result"
        assert "launches_per_minute" in refused["message"]
        await trio.sleep(6)
        assert (await peer.ask("launch_instance", program_hash=name))["successful"]


def _begin_upload(peer: Peer) -> None:
    """The first of two chunks."""
    peer.tell(
        "upload_program",
        corr_id=7,
        program_hash="0" * 64,
        chunk_index=0,
        total_chunks=2,
        chunk_data=b"x" * 1000,
    )


async def test_an_upload_that_stops_is_dropped(tmp_path: Path) -> None:
    config = ServerConfig(upload_idle_seconds=8.0)
    async with server_in_memory(tmp_path, config=config) as pair:
        peer = pair.connect()
        await peer.log_in()
        _begin_upload(peer)
        await trio.testing.wait_all_tasks_blocked()
        assert pair.server.uploading.held == 1000

        reply = await peer.hear()

        assert (reply["corr_id"], reply["successful"]) == (7, False)
        assert "8 seconds" in reply["result"]
        assert pair.server.uploading.held == 0


async def test_the_uploads_of_a_client_that_leaves_are_dropped(tmp_path: Path) -> None:
    async with server_in_memory(tmp_path) as pair:
        peer = pair.connect()
        await peer.log_in()
        _begin_upload(peer)
        peer.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert pair.server.uploading.held == 0
        assert not pair.server.sessions


async def test_a_launch_sees_what_was_uploaded_before_it(tmp_path: Path) -> None:
    """A client need not wait for one reply to send the next request."""
    wasm = component(RETURNS)
    name = blake3(wasm).hexdigest()
    async with server_in_memory(tmp_path) as pair:
        peer = pair.connect()
        await peer.log_in()
        peer.tell(
            "upload_program",
            corr_id=8,
            program_hash=name,
            chunk_index=0,
            total_chunks=1,
            chunk_data=wasm,
        )
        peer.tell("launch_instance", corr_id=9, program_hash=name, arguments=[])
        heard = [await peer.hear() for _ in range(3)]

        assert [(h["type"], h.get("corr_id")) for h in heard] == [
            ("response", 8),
            ("instance_launch_result", 9),
            ("instance_event", None),
        ]
        assert (heard[2]["event"], heard[2]["message"]) == (1, "the end")


async def test_the_end_of_a_detached_instance_is_forgotten_in_time(tmp_path: Path) -> None:
    quotas = attrs.evolve(Quotas(), kept_instances=2)
    config = ServerConfig(kept_seconds=50.0, quotas=quotas)
    async with server_in_memory(tmp_path, config=config) as pair:
        name = await pair.keep(RETURNS)
        peer = pair.connect()
        await peer.log_in()
        for _ in range(4):
            assert (await peer.ask("launch_instance", program_hash=name, detached=True))[
                "successful"
            ]
        await trio.testing.wait_all_tasks_blocked()
        listed = (await peer.ask("list_instances"))["instances"]
        assert [entry["status"] for entry in listed] == ["Finished", "Finished"]
        await trio.sleep(51)
        assert (await peer.ask("list_instances"))["instances"] == []


async def test_a_terminated_instance_takes_no_place_of_one_that_has_ended(tmp_path: Path) -> None:
    config = ServerConfig(quotas=attrs.evolve(Quotas(), kept_instances=1))
    async with server_in_memory(tmp_path, config=config) as pair:
        short, endless = await pair.keep(RETURNS), await pair.keep(GUEST.read_text())
        peer = pair.connect()
        await peer.log_in()
        ended = await peer.ask("launch_instance", program_hash=short, detached=True)
        await trio.testing.wait_all_tasks_blocked()
        other = await peer.ask(
            "launch_instance",
            program_hash=endless,
            arguments=["tokens", "8000", "prompt"],
            detached=True,
        )
        await peer.ask("terminate_instance", instance_id=other["message"])
        await trio.testing.wait_all_tasks_blocked()

        listed = (await peer.ask("list_instances"))["instances"]

        assert [entry["id"] for entry in listed] == [ended["message"]]


async def test_a_drain_says_goodbye(tmp_path: Path) -> None:
    async with server_in_memory(tmp_path) as pair:
        peer = pair.connect()
        await peer.log_in()
        await pair.server.drain(5.0)
        assert "shutting down" in (await peer.hear())["message"]
        assert (await peer.goodbye())[0] == GOING_AWAY
        assert pair.server.refuses_connections() == "the server is shutting down"
