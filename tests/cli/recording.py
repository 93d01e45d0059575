"""Pages of a server as `pie top` reads them, recorded from a simulated engine."""

from __future__ import annotations

import json
from collections.abc import Sequence

import attrs
import inferlet
import trio

from pie.batch import Batch, BatchResult
from pie.cli.scrapes import Scrape
from pie.engine import open_engine
from pie.offload import inline
from pie.server.counters import Refusal, ServerState
from pie.server.health import Health
from pie.server.listing import InstanceRow, as_json
from pie.server.metrics import Metrics
from pie.testing import HashModel, SimulatedGpu, run_native, run_simulated

ROWS = (
    InstanceRow(
        uuid="0b7c6d0e-4c2f-4f1e-8c53-0d9f8a6f2a10",
        program="text-completion",
        user="ann",
        status="Attached",
        seconds=7.5,
        pages=2,
        queued=1,
    ),
    InstanceRow(
        uuid="f3b0a3a4-95f7-4a6d-9b6e-6e5ed92f9b7e",
        program="[red]beam\x1b[31m",
        user="bob",
        status="Detached",
        seconds=4000.0,
    ),
    InstanceRow(
        uuid="9a3df1f0-0f5b-4a10-b8d5-0c50c15a3f11",
        program="tree",
        user="ann",
        status="Attached",
        seconds=90.0,
        pages=40,
    ),
)


@attrs.frozen
class Pages:
    """What the three endpoints give."""

    at: float
    metrics: str
    health: bytes
    listing: bytes

    def scrape(self) -> Scrape:
        return Scrape.of(self.at, metrics=self.metrics, health=self.health, listing=self.listing)


class Watched(SimulatedGpu):
    """Tells metrics of its steps."""

    metrics: Metrics

    async def run(self, batch: Batch) -> BatchResult:
        began = trio.current_time()
        result = await super().run(batch)
        self.metrics.model(self.runner.info).on_step(batch, trio.current_time() - began)
        return result


async def _decode(_: list[str]) -> None:
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.fill("a question of a guest")
    while True:
        await context.step(inferlet.Greedy())


async def _record(seconds: Sequence[float]) -> list[Pages]:
    metrics = Metrics()
    device = Watched(HashModel("small", pages=64))
    device.metrics = metrics
    health = Health(metrics)
    pages = []
    async with (
        open_engine([device], offload=inline, observe=metrics.model, guests=metrics) as engine,
        trio.open_nursery() as nursery,
    ):
        for _ in range(4):
            nursery.start_soon(run_native, engine, _decode)
        began = trio.current_time()
        for moment in seconds:
            await trio.sleep_until(began + moment)
            metrics.counters.refusals[Refusal.LAUNCHES_PER_MINUTE] += 3
            metrics.lateness.note(0.0)
            state = ServerState(connections=2, instances={"Attached": 2, "Detached": 1})
            pages.append(
                Pages(
                    moment,
                    (await metrics.render(engine, state)).decode(),
                    json.dumps(health.report(trio.current_time()).body).encode(),
                    as_json(ROWS),
                )
            )
        nursery.cancel_scope.cancel()
    return pages


def record(*seconds: float) -> list[Pages]:
    """What a server says so long after four guests began to decode, the same in every run."""
    return run_simulated(_record, seconds, seed=0)
