"""Beside clients that mean no good, an ordinary one gets every answer; when they go, nothing stays.

What they cost it in time is measured by `python -m benchmarks.server`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from .children import child, install
from .live import Live, events, keep_probe, live_server
from .mischief import until
from .published_client import published

pytestmark = pytest.mark.slow

ACTS = {
    "deaf": 2,
    "garbage": 20,
    "uploads": 12,
    "silent": 1000,
    "crowding": 300,
    "launches": 40,
    "fragments": 3,
    "requests": 1000,
}
"""How many hostile things of each kind."""


async def _ordinary(live: Live, name: str, over: trio.Event) -> int:
    """Stream tokens until it is over, at least twice; the same come every time."""

    async def scenario() -> tuple[list[str], str]:
        async with published("0.2.1").PieClient(live.uri) as client:
            await client.authenticate("u")
            heard = await events(await client.launch_instance(name, ["generate", "30"]))
            assert heard[-1][0] == "Completed"
            return [text for _, text in heard[:-1]], heard[-1][1]

    first: tuple[list[str], str] | None = None
    times = 0
    while times < 2 or not over.is_set():
        again = await live.run(scenario)
        first = first or again
        assert "".join(again[0]) == again[1]
        assert again == first
        times += 1
    return times


@pytest.mark.parametrize("kind", ACTS)
async def test_an_ordinary_client_gets_every_answer(kind: str, tmp_path: Path) -> None:
    program = install(tmp_path)
    over = trio.Event()
    async with live_server(tmp_path) as live:
        name = await keep_probe(live)
        port = str(live.serving.port)
        acts = f"--acts={ACTS[kind]}"
        async with (
            child("benchmarks.server.hostile", kind, port, program, acts) as hostile,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(_ordinary, live, name, over)
            seen = await hostile.hear()
            over.set()
        assert sum(seen.values()) >= ACTS[kind]
        await until(lambda: not live.server.sessions)
        assert live.server.uploading.held == 0
