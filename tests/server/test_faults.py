"""Models that raise or hang under a server: what is in the step fails, and the next one runs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import attrs
import pytest

from pie.batch import Batch, BatchResult
from pie.devices import ThreadedModel
from pie.server.config import ServerConfig
from pie.testing import HashModel, SimulatedGpu

from .live import events, keep_probe, live_server
from .published_client import published
from .test_operations import get

pytestmark = pytest.mark.slow


@attrs.define(eq=False)
class Broken:
    """A runner whose next steps raise, or hang until they are let go."""

    runner: HashModel
    raises: int = 0
    hangs: int = 0
    let_go: threading.Event = attrs.field(factory=threading.Event)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runner, name)

    def run(self, batch: Batch) -> BatchResult:
        if self.raises:
            self.raises -= 1
            raise RuntimeError("the card fell off the bus")
        if self.hangs:
            self.hangs -= 1
            self.let_go.wait()
        return self.runner.run(batch)


async def _generate(live: Any, name: str) -> tuple[str, str]:
    """How an instance that generates a few tokens ends."""

    async def scenario() -> tuple[str, str]:
        async with published("0.2.1").PieClient(live.uri) as client:
            await client.authenticate("u")
            heard = await events(await client.launch_instance(name, ["generate", "5"]))
            last: tuple[str, str] = heard[-1]
            return last

    end: tuple[str, str] = await live.run(scenario)
    return end


@pytest.mark.makes_a_bug
async def test_a_model_that_raises_fails_those_passes_and_runs_the_next(tmp_path: Path) -> None:
    broken = Broken(HashModel(), raises=1)
    async with live_server(tmp_path, ThreadedModel(broken)) as live:
        name = await keep_probe(live)
        kind, text = await _generate(live, name)
        assert kind == "Exception"
        assert "RuntimeError: the card fell off the bus" in text
        body = (await get(live, "/healthz")).json()
        assert body["models"]["simulated"]["failures"] == 1
        assert "fell off the bus" in body["models"]["simulated"]["last_failure"]

        assert (await _generate(live, name))[0] == "Completed"
        assert (await get(live, "/healthz")).json()["healthy"]


@pytest.mark.makes_a_bug
async def test_a_model_that_goes_on_raising_is_unhealthy(tmp_path: Path) -> None:
    broken = Broken(HashModel(), raises=3)
    async with live_server(tmp_path, ThreadedModel(broken)) as live:
        name = await keep_probe(live)
        for _ in range(3):
            assert (await _generate(live, name))[0] == "Exception"
        health = await get(live, "/healthz")
        assert health.status_code == 503
        assert health.json()["models"]["simulated"]["state"] == "failing"
        assert (await _generate(live, name))[0] == "Completed"
        assert (await get(live, "/healthz")).status_code == 200


async def test_a_model_that_hangs_fails_those_passes_and_runs_the_next(tmp_path: Path) -> None:
    """The other model of the same server does not notice."""
    broken = Broken(HashModel("stuck"), hangs=1)
    config = ServerConfig(step_seconds=0.5)
    try:
        async with live_server(
            tmp_path, ThreadedModel(broken), SimulatedGpu(HashModel("other")), config=config
        ) as live:
            name = await keep_probe(live)
            kind, text = await _generate(live, name)
            assert kind == "Exception"
            assert "the limit is 0.5 s" in text
            health = await get(live, "/healthz")
            assert health.status_code == 503
            assert health.json()["models"]["stuck"]["state"] == "stalled"
            assert health.json()["models"]["other"]["state"] == "idle"

            broken.let_go.set()
            while (await get(live, "/healthz")).json()["models"]["stuck"]["state"] == "stalled":
                pass
            assert (await _generate(live, name))[0] == "Completed"
            assert (await get(live, "/healthz")).status_code == 200
    finally:
        broken.let_go.set()
