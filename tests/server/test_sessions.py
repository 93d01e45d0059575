"""Clients that come and go, read slowly or not at all: what each of them gets of an instance."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import trio

from pie.server.config import Quotas, ServerConfig
from pie.server.frames import CHUNK

from .live import keep_probe, live_server
from .published_client import VERSIONS, published
from .raw import PATIENCE_SECONDS, RawClient, launched, raw_client, statuses

pytestmark = pytest.mark.slow

MESSAGE_BYTES = 1 << 15
ON_THE_WIRE = 512
"""Messages: more than what an instance, and sockets on one machine, hold for a client."""
NOTICE = re.compile(
    r"\[pie: (\d+) pieces of output, (\d+) bytes, came while no client was attached and were "
    r"dropped\]\n"
)


async def state_of(client: RawClient, uuid: str, wanted: str) -> None:
    """Wait until the instance is listed so."""
    with trio.fail_after(PATIENCE_SECONDS):
        while (await statuses(client)).get(uuid) != wanted:
            pass


async def value(client: RawClient, program: str, key: str) -> str:
    """What the user's store has."""
    uuid = await launched(client, program, "remember", key)
    return str((await client.to_the_end(uuid))[-1][1])


async def attached(client: RawClient, uuid: str) -> None:
    reply = await client.ask("attach_instance", instance_id=uuid)
    assert reply["successful"], reply


def lines_of(said: list[tuple[str, Any]]) -> list[int]:
    """Numbers of the lines that were printed; each must be whole."""
    text = "".join(text for kind, text in said if kind == "Stdout")
    return [int(line[:8]) for line in text.splitlines()]


def messages_of(said: list[tuple[str, Any]]) -> list[int]:
    """Numbers of the messages; each must be whole."""
    texts = [text for kind, text in said if kind == "MESSAGE"]
    assert {len(text) for text in texts} == {MESSAGE_BYTES}
    return [int(text[:8]) for text in texts]


async def sent_at_most(other: RawClient, program: str) -> int:
    """How many messages are out when there are no more of them while others are served."""
    echo = await launched(other, program, "echo")
    before = None
    while (now := await value(other, program, "messages")) != before:
        before = now
        for number in range(20):
            await other.tell(echo, str(number))
            assert await other.heard(echo) == ("MESSAGE", f"echo {number}")
    return int(now)


async def test_a_slow_client_makes_its_own_instance_wait_and_loses_nothing(tmp_path: Path) -> None:
    count = 2 * ON_THE_WIRE

    async with (
        live_server(tmp_path) as live,
        raw_client(live.port) as slow,
        raw_client(live.port) as other,
    ):
        name = await keep_probe(live)
        uuid = await launched(slow, name, "messages", str(count), str(MESSAGE_BYTES))

        assert 0 < await sent_at_most(other, name) < count

        said = await slow.to_the_end(uuid)
        assert messages_of(said) == list(range(count))
        assert said[-1] == ("COMPLETED", str(count))


async def test_of_detached_output_the_newest_is_kept(tmp_path: Path) -> None:
    """The next client is told what it has missed, and gets the rest in order and the end last."""
    config = ServerConfig(detached_bytes=100_100)

    async with live_server(tmp_path, config=config) as live, raw_client(live.port) as client:
        name = await keep_probe(live)
        uuid = await launched(client, name, "lines", "1000", "500", detached=True)
        await state_of(client, uuid, "Finished")

        await attached(client, uuid)
        said = await client.to_the_end(uuid)

        assert said[0][0] == "Stderr"
        notice = NOTICE.fullmatch(said[0][1])
        assert notice is not None
        assert [int(number) for number in notice.groups()] == [800, 400_000]
        assert lines_of(said) == list(range(800, 1000))
        assert said[-1] == ("COMPLETED", "1000")


async def test_nothing_is_dropped_that_fits(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live, raw_client(live.port) as client:
        name = await keep_probe(live)
        uuid = await launched(client, name, "lines", "1000", "500", detached=True)
        await state_of(client, uuid, "Finished")

        await attached(client, uuid)
        said = await client.to_the_end(uuid)

        assert {kind for kind, _ in said[:-1]} == {"Stdout"}
        assert lines_of(said) == list(range(1000))


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "stalled"])
async def test_a_client_that_is_gone_loses_what_was_on_the_wire_at_most(
    killed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one goes on from there; the message that was being sent may come again.

    One is killed while it gets all that came while nobody was there, the other stops reading.
    """
    count = 2 * ON_THE_WIRE
    config = ServerConfig(detached_bytes=1 << 30, stall_seconds=300.0 if killed else 1.0)
    whole: list[int] = []
    send_all = trio.SocketStream.send_all

    async def counted(self: trio.SocketStream, data: bytes) -> None:
        await send_all(self, data)
        if len(data) > MESSAGE_BYTES:
            whole.append(len(data))

    monkeypatch.setattr(trio.SocketStream, "send_all", counted)
    async with live_server(tmp_path, config=config) as live, raw_client(live.port) as second:
        name = await keep_probe(live)
        words = ("messages", str(count), str(MESSAGE_BYTES))
        async with raw_client(live.port) as first:
            uuid = await launched(first, name, *words, detached=killed)
            if killed:
                await state_of(first, uuid, "Finished")
                await attached(first, uuid)
            got = messages_of([await first.heard(uuid) for _ in range(20)])
            assert got == list(range(20))
            if killed:
                await first.vanish()
            await state_of(second, uuid, "Finished" if killed else "Detached")
        on_the_wire = len(whole)
        await attached(second, uuid)

        said = await second.to_the_end(uuid)

        rest = messages_of(said)
        assert rest == list(range(rest[0], count))
        assert got[-1] <= rest[0]
        assert on_the_wire - 1 <= rest[0] <= on_the_wire + 1
        assert {kind for kind, _ in said[:-1]} == {"MESSAGE"}


async def test_one_of_those_who_attach_at_once_gets_it_all(tmp_path: Path) -> None:
    """The others are told, and any of them may have it once it is free."""
    async with (
        live_server(tmp_path) as live,
        raw_client(live.port) as first,
        raw_client(live.port) as second,
    ):
        name = await keep_probe(live)
        uuid = await launched(first, name, "wait", detached=True)
        asked = [
            (client, await client.post("attach_instance", instance_id=uuid))
            for client in (first, second) * 8
        ]
        replies = [(client, await client.answer(number)) for client, number in asked]
        winners = [client for client, reply in replies if reply["successful"]]
        assert len(winners) == 1
        refusals = [reply["message"] for _, reply in replies if not reply["successful"]]
        assert refusals == [f"Instance already attached: {uuid}"] * 15
        (winner,) = winners
        loser = second if winner is first else first
        assert await winner.heard(uuid) == ("MESSAGE", "waiting")
        await winner.vanish()
        await state_of(loser, uuid, "Detached")
        await attached(loser, uuid)
        await loser.tell(uuid, "mine")
        assert await loser.to_the_end(uuid) == [("COMPLETED", "mine")]


async def test_the_reply_comes_before_all_that_an_instance_says(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live, raw_client(live.port) as client:
        name = await keep_probe(live)
        for _ in range(50):
            await client.post("launch_instance", program_hash=name, arguments=["say", "it"])

        known: set[str] = set()
        ended: set[str] = set()
        while len(ended) < 50:
            frame = await client.take()
            if frame["type"] == "instance_launch_result":
                known.add(frame["message"])
                continue
            assert frame["instance_id"] in known - ended
            if frame.get("event", 0):
                ended.add(frame["instance_id"])


async def test_ended_instances_are_kept_for_their_client_but_not_for_ever(tmp_path: Path) -> None:
    brief = ServerConfig(kept_seconds=0.0)
    async with live_server(tmp_path / "a", config=brief) as live, raw_client(live.port) as client:
        name = await keep_probe(live)
        await launched(client, name, "say", "it", detached=True)
        with trio.fail_after(PATIENCE_SECONDS):
            while await statuses(client):
                pass

    few = ServerConfig(quotas=Quotas(kept_instances=2))
    async with live_server(tmp_path / "b", config=few) as live, raw_client(live.port) as client:
        name = await keep_probe(live)
        all_of_them: list[str] = []
        for text in ("0", "1", "2", "3"):
            all_of_them.append(await launched(client, name, "say", text, detached=True))
            await state_of(client, all_of_them[-1], "Finished")
        assert list(await statuses(client)) == all_of_them[2:]
        await attached(client, all_of_them[2])
        assert (await client.to_the_end(all_of_them[2]))[-1] == ("COMPLETED", "2")
        reply = await client.ask("attach_instance", instance_id=all_of_them[0])
        assert reply["message"] == f"Instance not found: {all_of_them[0]}"


async def test_instances_without_a_client_are_terminated_and_gone(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live, raw_client(live.port) as client:
        name = await keep_probe(live)
        for mode, state in (("wait", "Detached"), ("spin", "Detached"), ("say", "Finished")):
            uuid = await launched(client, name, mode, detached=True)
            await state_of(client, uuid, state)
            assert (await client.ask("terminate_instance", instance_id=uuid))["successful"]
            assert await statuses(client) == {}
            reply = await client.ask("attach_instance", instance_id=uuid)
            assert reply["message"] == f"Instance not found: {uuid}"


async def test_whoever_follows_hears_that_another_connection_has_ended_it(tmp_path: Path) -> None:
    async with (
        live_server(tmp_path) as live,
        raw_client(live.port) as first,
        raw_client(live.port) as second,
    ):
        name = await keep_probe(live)
        uuid = await launched(first, name, "wait")
        assert await first.heard(uuid) == ("MESSAGE", "waiting")
        assert (await second.ask("terminate_instance", instance_id=uuid))["successful"]
        assert await first.heard(uuid) == ("ABORTED", "terminated by its client")


@pytest.mark.parametrize("version", VERSIONS)
async def test_equal_blobs_of_two_instances_both_arrive(version: str, tmp_path: Path) -> None:
    """The published client tells blobs apart by their content alone, also while they arrive."""
    size = 5 * CHUNK + 1

    async def scenario() -> None:
        async with published(version).PieClient(live.uri) as client:
            await client.authenticate("u")
            instances = [await client.launch_instance(name, ["blob", str(size)]) for _ in range(4)]
            for instance in instances:
                await instance.send("now")
            for instance in instances:
                event, content = await instance.recv()
                assert (event.name, content) == ("Blob", b"abc" * (size // 3))

    async with live_server(tmp_path) as live:
        name = await keep_probe(live)
        await live.run(scenario)


@pytest.mark.parametrize("extra", [True, False])
async def test_the_number_of_a_blobs_chunks_is_true_if_wanted(extra: bool, tmp_path: Path) -> None:
    async with (
        live_server(tmp_path, config=ServerConfig(blob_end_chunk=extra)) as live,
        raw_client(live.port) as client,
    ):
        name = await keep_probe(live)
        uuid = await launched(client, name, "blob", str(3 * CHUNK))
        await client.tell(uuid, "now")
        chunks = [await client.take() for _ in range(3)]
        assert [chunk["chunk_index"] for chunk in chunks] == [0, 1, 2]
        assert {chunk["total_chunks"] for chunk in chunks} == {3 + extra}
        assert await client.heard(uuid) == ("COMPLETED", "sent")
