"""Every method of the published Python clients against a live server, with real inferlets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from pie.ids import EventCode
from pie.server.output import hash_of
from pie.testing import HashModel, SimulatedGpu

from .live import Live, events, keep_probe, live_server, probe
from .published_client import VERSIONS, published

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("version", VERSIONS)]

Scenario = Callable[[Any], Coroutine[Any, Any, Any]]


async def _as_user(live: Live, version: str, scenario: Scenario, user: str = "u") -> Any:
    """Run `scenario` with a connected and authenticated client."""

    async def connected() -> Any:
        async with published(version).PieClient(live.uri) as client:
            await client.authenticate(user)
            return await scenario(client)

    return await live.run(connected)


async def test_a_program_is_uploaded_once_and_launched(version: str, tmp_path: Path) -> None:
    async def scenario(client: Any) -> None:
        await client.ping()
        name = hash_of(probe())
        assert not await client.program_exists(name)
        await client.upload_program(probe())
        assert await client.program_exists(name)
        instance = await client.launch_instance(name, ["say", "the", "words"])

        heard = await events(instance)

        assert sorted(heard[:-1]) == [
            ("Message", "a message"),
            ("Stderr", "to stderr\n"),
            ("Stdout", "to stdout\n"),
        ]
        assert heard[-1] == ("Completed", "the words")

    async with live_server(tmp_path) as live:
        await _as_user(live, version, scenario)


async def test_output_arrives_in_order_and_whole(version: str, tmp_path: Path) -> None:
    """Messages stay where they were between the lines, and no character is cut in two."""

    async def scenario(client: Any) -> None:
        instance = await client.launch_instance(name, ["count", "200"])
        heard = await events(instance)

        lines: list[str] = []
        for kind, text in heard[:-1]:
            if kind == "Stdout":
                lines += text.splitlines()
            else:
                assert (kind, text) == ("Message", lines[-1])
        assert lines == [str(number) for number in range(200)]
        assert heard[-1] == ("Completed", "200")

        instance = await client.launch_instance(name, ["signs", "40000"])
        *pieces, last = await events(instance)
        assert "".join(text for _, text in pieces) == "äöü€😀" * 40000
        assert last == ("Completed", "done")

    async with live_server(tmp_path) as live:
        name = await keep_probe(live)
        await _as_user(live, version, scenario)


async def test_failures_arrive_with_their_text(version: str, tmp_path: Path) -> None:
    async def scenario(client: Any) -> None:
        instance = await client.launch_instance(name, ["fail", "no", "luck"])
        assert await events(instance) == [("Exception", "no luck")]

        instance = await client.launch_instance(name, ["breaks"])
        heard = await events(instance)
        assert heard[-1] == ("Exception", "KeyError: 'missing'")

        instance = await client.launch_instance(name, ["generate", "100"])
        kind, text = (await events(instance))[-1]
        assert kind == "OutOfResources"
        assert "KV pages" in text

    async with live_server(tmp_path, SimulatedGpu(HashModel(pages=2))) as live:
        name = await keep_probe(live)
        await _as_user(live, version, scenario)


async def test_requests_that_cannot_be_met_are_refused(version: str, tmp_path: Path) -> None:
    """Each raises with a reason, and the connection goes on."""

    async def scenario(client: Any) -> None:
        refused: list[tuple[str, Awaitable[Any]]] = [
            ("no program", client.launch_instance("0" * 64)),
            ("nothing", client.launch_instance_from_registry("ns/nothing@1.0.0")),
            ("inferlet", client.launch_instance_from_registry("../../etc/passwd")),
            ("Instance not found", client.attach_instance("1234")),
            ("Instance not found", client.terminate_instance("1234")),
            ("Instance not found", client.upload_blob("1234", b"blob")),
            ("WebAssembly", client.upload_program(b"no program")),
            ("WebAssembly", client.upload_program(b"x" * (3 << 18))),
        ]
        for text, request in refused:
            with pytest.raises(Exception, match=text):
                await request
        successful, text = await client.query("weather", "")
        assert not successful
        assert "model_status" in text
        await client.signal_instance("1234", "nobody hears this")
        await client.ping()

    async with live_server(tmp_path) as live:
        await _as_user(live, version, scenario)


@pytest.mark.parametrize("size", [0, 1, 262_144, 262_145, 1_300_000])
async def test_blobs_go_both_ways(version: str, size: int, tmp_path: Path) -> None:
    blob = bytes(number % 251 for number in range(size))

    async def scenario(client: Any) -> None:
        instance = await client.launch_instance(name, ["mirror"])
        await instance.upload_blob(blob)
        assert await events(instance) == [("Blob", blob + blob), ("Completed", str(size))]

    async with live_server(tmp_path) as live:
        name = await keep_probe(live)
        await _as_user(live, version, scenario)


async def test_messages_reach_the_instance_in_order(version: str, tmp_path: Path) -> None:
    async def scenario(client: Any) -> None:
        instance = await client.launch_instance(name, ["echo"])
        for number in range(100):
            await instance.send(str(number))
        await instance.send("quit")

        heard = await events(instance)

        assert heard[:-1] == [("Message", f"echo {number}") for number in range(100)]
        assert heard[-1] == ("Completed", "100 messages")

    async with live_server(tmp_path) as live:
        name = await keep_probe(live)
        await _as_user(live, version, scenario)


async def test_what_is_sent_before_leaving_arrives(version: str, tmp_path: Path) -> None:
    """A message has no reply that a client could wait for before it closes the connection."""

    async def leave(client: Any) -> str:
        instance = await client.launch_instance(name, ["echo"])
        for number in range(50):
            await instance.send(str(number))
        await instance.send("quit")
        uuid: str = instance.instance_id
        return uuid

    async def come_back(client: Any) -> None:
        instance = await client.attach_instance(uuid)
        assert (await events(instance))[-1] == ("Completed", "50 messages")

    async with live_server(tmp_path) as live:
        name = await keep_probe(live)
        uuid = await _as_user(live, version, leave)
        await _as_user(live, version, come_back)


@pytest.mark.parametrize("mode", ["wait", "spin"])
async def test_an_instance_is_terminated(version: str, mode: str, tmp_path: Path) -> None:
    async def scenario(client: Any) -> None:
        instance = await client.launch_instance(name, [mode])
        await instance.recv()
        await instance.terminate()
        assert await events(instance) == [("Aborted", "terminated by its client")]
        assert await client.list_instances() == []
        with pytest.raises(Exception, match="Instance not found"):
            await instance.terminate()

    async with live_server(tmp_path) as live:
        name = await keep_probe(live)
        await _as_user(live, version, scenario)


async def test_a_detached_instance_is_listed_attached_and_heard(
    version: str, tmp_path: Path
) -> None:
    async def launch(client: Any) -> str:
        instance = await client.launch_instance(name, ["wait"], detached=True)
        (listed,) = await client.list_instances()
        assert (listed.id, listed.arguments, listed.status) == (
            instance.instance_id,
            ["wait"],
            "Detached",
        )
        uuid: str = instance.instance_id
        return uuid

    async def attach(client: Any) -> None:
        instance = await client.attach_instance(uuid)
        assert [i.status for i in await client.list_instances()] == ["Attached"]
        with pytest.raises(Exception, match="already attached"):
            await client.attach_instance(uuid)
        await instance.send("the end")
        assert await events(instance) == [("Message", "waiting"), ("Completed", "the end")]
        assert await client.list_instances() == []

    async with live_server(tmp_path) as live:
        name = await keep_probe(live)
        uuid = await _as_user(live, version, launch)
        await _as_user(live, version, attach)


async def test_the_end_of_a_detached_instance_is_kept(version: str, tmp_path: Path) -> None:
    async def launch(client: Any) -> str:
        instance = await client.launch_instance(name, ["say", "it"], detached=True)
        while [i.status for i in await client.list_instances()] != ["Finished"]:
            await client.ping()
        uuid: str = instance.instance_id
        return uuid

    async def attach(client: Any) -> None:
        instance = await client.attach_instance(uuid)
        heard = await events(instance)
        assert ("Stdout", "to stdout\n") in heard
        assert heard[-1] == ("Completed", "it")
        with pytest.raises(Exception, match="Instance not found"):
            await client.attach_instance(uuid)

    async with live_server(tmp_path) as live:
        name = await keep_probe(live)
        uuid = await _as_user(live, version, launch)
        await _as_user(live, version, attach)


async def test_nobody_reaches_the_instances_of_another_user(version: str, tmp_path: Path) -> None:
    async def own(client: Any) -> str:
        instance = await client.launch_instance(name, ["wait"], detached=True)
        uuid: str = instance.instance_id
        return uuid

    async def steal(client: Any) -> None:
        assert await client.list_instances() == []
        for request in (client.attach_instance, client.terminate_instance):
            with pytest.raises(Exception, match="Instance not found"):
                await request(uuid)
        with pytest.raises(Exception, match="Instance not found"):
            await client.upload_blob(uuid, b"blob")
        await client.signal_instance(uuid, "not from its owner")
        await client.ping()

    async def still_there(client: Any) -> None:
        instance = await client.attach_instance(uuid)
        await instance.send("mine")
        assert (await events(instance))[-1] == ("Completed", "mine")

    async with live_server(tmp_path) as live:
        name = await keep_probe(live)
        uuid = await _as_user(live, version, own)
        await _as_user(live, version, steal, user="other")
        await _as_user(live, version, still_there)


async def test_the_token_of_the_server_sees_all(version: str, tmp_path: Path) -> None:
    async def own(client: Any) -> None:
        await client.launch_instance(name, ["wait"], detached=True)

    async def look() -> None:
        async with published(version).PieClient(live.uri) as client:
            await client.internal_authenticate(live.server.authentication.token)
            (listed,) = await client.list_instances()
            await client.terminate_instance(listed.id)
        async with published(version).PieClient(live.uri) as client:
            with pytest.raises(Exception, match="Invalid token"):
                await client.internal_authenticate("wrong")

    async with live_server(tmp_path) as live:
        name = await keep_probe(live)
        await _as_user(live, version, own)
        await live.run(look)
        assert len(live.server.instances) == 0


async def test_the_old_way_to_log_in_still_works(version: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with published(version).PieClient(live.uri) as client:
            successful, _ = await client.identify("somebody")
            assert successful
            successful, text = await client.query("model_status", "")
            assert successful
            assert "simulated" in text

    async with live_server(tmp_path) as live:
        await live.run(scenario)


async def test_tokens_are_streamed(version: str, tmp_path: Path) -> None:
    async def scenario(client: Any) -> None:
        instance = await client.launch_instance(name, ["generate", "40"])
        heard = await events(instance)
        assert [kind for kind, _ in heard] == ["Message"] * (len(heard) - 1) + ["Completed"]
        assert "".join(text for _, text in heard[:-1]) == heard[-1][1]

    async with live_server(tmp_path) as live:
        name = await keep_probe(live)
        await _as_user(live, version, scenario)


def test_the_clients_know_the_events_of_the_server(version: str) -> None:
    known = {event.name.upper(): event.value for event in published(version).Event}
    ours = {code.name.replace("_", ""): int(code) for code in EventCode}

    assert ours.items() <= known.items()
