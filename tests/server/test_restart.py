"""A server that was killed and is started again has what it had promised to keep."""

from __future__ import annotations

import signal
import stat
from pathlib import Path

import pytest
import trio

from pie.server.library import ProgramLibrary
from pie.server.program_names import parse_name

from .live import probe
from .processes import SERVES, half_uploaded, make_home, pie_serve, uploaded
from .raw import Closed, RawClient, launched, raw_client, statuses

pytestmark = pytest.mark.slow

PROMPT = "well, hello world, hello well, hello, hello world: well well"
INSTALLED = "test/probe@1.0.0"
TALLIED = 50


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.long)])
async def test_what_was_kept_is_there_after_a_kill(real: bool, tmp_path: Path) -> None:
    """Killed while it keeps more, with inferlets and an upload in the middle of something."""
    home = make_home(tmp_path, real=real)
    install(home)
    async with pie_serve(home) as server:
        await server.logged(SERVES)
        async with raw_client(server.port) as client, raw_client(server.port) as other:
            program = await uploaded(client)
            await result(client, program, "remember", "key", "value")
            story = await result(client, program, "publish", "story", PROMPT)
            assert len(set(story.split())) > 1
            assert await result(client, program, "resume", "story") == story

            await half_uploaded(client)
            await launched(other, program, "generate", "400")
            await launched(other, program, "wait", detached=True)
            tally = await launched(client, program, "tally")
            said = [await client.heard(tally) for _ in range(TALLIED)]
            assert said == [("MESSAGE", str(number)) for number in range(TALLIED)]
            server.signal(signal.SIGKILL)
            last = await last_heard(client, tally)
            assert await server.ended() == -signal.SIGKILL

    async with pie_serve(home) as server:
        await server.logged(SERVES)
        async with raw_client(server.port) as client:
            assert await statuses(client) == {}
            found = await client.ask("query", subject="program_exists", record=program)
            assert found["result"] == "true"
            assert await result(client, program, "remember", "key") == "value"
            assert int(await result(client, program, "tallied")) > last >= TALLIED - 1
            assert await result(client, program, "resume", "story") == story
            by_name = await client.ask(
                "launch_instance_from_registry", inferlet=INSTALLED, arguments=["say", "installed"]
            )
            assert (await client.to_the_end(by_name["message"]))[-1] == ("COMPLETED", "installed")


async def test_a_folder_has_one_server_and_a_token_for_its_owner(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    async with pie_serve(home) as server:
        await server.logged(SERVES)
        token = home / "internal_token"
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        before = token.read_text()
        async with pie_serve(home) as second:
            assert await second.ended() == 2
            (reason,) = [line for line in second.log.splitlines() if line.startswith("pie: ")]
            assert reason == (
                f"pie: another server (process {server.process.pid}) uses {home}: stop it, or set "
                "PIE_HOME to another folder"
            )
        assert token.read_text() == before
        async with raw_client(server.port, None) as client:
            assert (await client.ask("internal_authenticate", token=before))["successful"]


def install(home: Path) -> None:
    """Make the probe everybody's."""
    library = ProgramLibrary.open(home / "programs")
    library.install(probe(), parse_name(INSTALLED), replace=False)
    library.close()


async def result(client: RawClient, program: str, *words: str) -> str:
    """What an instance returns."""
    uuid = await launched(client, program, *words)
    kind, text = (await client.to_the_end(uuid))[-1]
    assert kind == "COMPLETED", text
    return str(text)


async def last_heard(client: RawClient, tally: str) -> int:
    """The last number that reaches the client before it hears of the end."""
    last = TALLIED - 1
    with trio.fail_after(60):
        while True:
            try:
                kind, text = await client.heard(tally)
            except Closed:
                return last
            assert (kind, text) == ("MESSAGE", str(last + 1))
            last += 1
