"""Hostile clients: each gets its answers, learns nothing, and nobody beside them notices."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import pytest
import trio

from pie.server.authentication import Authentication
from pie.server.config import Auth
from pie.server.users import Users
from pie.server.users_edit import add_key

from .keys import openssh
from .live import keep_probe, live_server
from .mischief import UNFINISHED, Mischief, beside, harmless, until
from .raw import PATIENCE_SECONDS, Closed, Frame, RawClient, launched, raw_client

pytestmark = pytest.mark.slow

STATES = ("stranger", "user", "draining", "challenged", "failed")
MOVES = 40
CODES = (1007, 1008, 1009)
"""With which the server sends away a client whose messages it understands."""


@pytest.mark.parametrize("state", STATES)
async def test_whatever_a_client_sends_is_answered(state: str, tmp_path: Path) -> None:
    await _all_play(state, tmp_path, range(16))


@pytest.mark.long
@pytest.mark.parametrize("first", range(1000, 1500, 50))
@pytest.mark.parametrize("state", STATES)
async def test_whatever_a_client_sends_is_answered_long(
    state: str, first: int, tmp_path: Path
) -> None:
    await _all_play(state, tmp_path, range(first, first + 50))


async def _all_play(state: str, folder: Path, seeds: range) -> None:
    """Sessions of these seeds at once, beside one that behaves."""
    checks = state in ("challenged", "failed")
    if checks:
        add_key(folder / "users", "ann", openssh("Ed25519"))
    authentication = Authentication(Auth.KEYS if checks else Auth.NONE, Users(folder / "users"))
    async with live_server(folder, authentication=authentication) as live:
        program = await keep_probe(live)
        await keep_probe(live, "internal")
        async with (
            beside(live, program),
            trio.open_nursery() as drain,
            AsyncExitStack() as stack,
        ):
            players = [
                (seed, await stack.enter_async_context(raw_client(live.port, None)))
                for seed in seeds
            ]
            all_mischief = [await _brought_to(state, *player, program) for player in players]
            if state == "draining":
                drain.start_soon(live.serving.drain, 1000.0)
                await until(lambda: live.server.draining)
            async with trio.open_nursery() as nursery:
                for mischief in all_mischief:
                    nursery.start_soon(_play, mischief, folder)
            drain.cancel_scope.cancel()
        await until(lambda: not live.server.sessions)
        assert live.server.uploading.held == 0


async def _brought_to(state: str, seed: int, client: RawClient, program: str) -> Mischief:
    mischief = Mischief(
        random=Random(f"{state} {seed}"),
        client=client,
        program=program,
        known=state in ("user", "draining"),
        may_be_closed=state == "failed",
    )
    if mischief.known:
        assert (await client.ask("identification", username="u"))["successful"]
        mischief.instances = [await launched(client, program, "echo", detached=True)]
    if state in ("challenged", "failed"):
        assert (await client.ask("identification", username="ann"))["successful"]
    if state == "failed":
        await client.post("signature", signature="AAAA")
    return mischief


async def _play(mischief: Mischief, folder: Path) -> None:
    """Do much that is wrong, and see that every request is answered; or leave without a word."""
    client, random = mischief.client, mischief.random
    try:
        with trio.fail_after(PATIENCE_SECONDS):
            for _ in range(random.randrange(1, MOVES)):
                await mischief.go_on()
        if random.random() < 0.2:
            await client.stream.send_all(random.choice(UNFINISHED))
            await client.vanish()
            return
        for corr_id in sorted(mischief.owed):
            _check(await client.answer(corr_id), folder)
    except (Closed, trio.BrokenResourceError):
        assert mischief.may_be_closed
        assert (await client.drain()).code in CODES
    for frame in client.inbox:
        _check(frame, folder)
    await client.vanish()


def _check(frame: Frame, folder: Path) -> None:
    if frame["type"] != "streaming_output":  # an inferlet may print a traceback of its own
        harmless(json.dumps(frame, default=repr), folder)
