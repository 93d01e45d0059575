"""Health is progress: what a model is said to do, and when a server is no use."""

from __future__ import annotations

import json
from typing import Any

import attrs
import inferlet
import pytest
import trio

from pie.engine import open_engine
from pie.offload import inline
from pie.server.health import Bounds, Health, ModelSnapshot, Snapshot, State, judge
from pie.server.metrics import Metrics
from pie.testing import SimulatedGpu, SlowBatch, run_native

BOUNDS = Bounds(step_seconds=120.0, failures=3, late_seconds=5.0)


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({}, State.IDLE),
        ({"progress_seconds": 1e6}, State.IDLE),
        ({"failures": 9, "consecutive_failures": 2}, State.IDLE),
        ({"queued": 1, "ready_seconds": 0.1, "progress_seconds": 1e6}, State.BUSY),
        ({"queued": 1, "ready_seconds": 1e6, "progress_seconds": 0.1}, State.BUSY),
        ({"queued": 1, "ready_seconds": 120.0, "progress_seconds": 120.0}, State.BUSY),
        ({"queued": 1, "ready_seconds": 121.0, "progress_seconds": 121.0}, State.STALLED),
        ({"queued": 1, "ready_seconds": None, "progress_seconds": 1e6}, State.BUSY),
        ({"queued": 9, "step_seconds": 119.0, "ready_seconds": 500.0}, State.BUSY),
        (
            {"step_seconds": 119.0, "ready_seconds": 500.0, "progress_seconds": 121.0},
            State.BUSY,
        ),
        ({"step_seconds": 121.0}, State.STALLED),
        ({"step_seconds": 1.0, "overdue": True}, State.STALLED),
        ({"consecutive_failures": 3}, State.FAILING),
        ({"consecutive_failures": 3, "queued": 1, "step_seconds": 1.0}, State.FAILING),
        ({"consecutive_failures": 3, "step_seconds": 121.0}, State.STALLED),
    ],
)
def test_the_state_of_a_model(facts: dict[str, Any], state: State) -> None:
    """A pass that waits for memory (not ready) is no stall: that is up to who holds it."""
    assert ModelSnapshot(name="m", **facts).state(BOUNDS) is state


FINE = ModelSnapshot(name="fine")
STUCK = ModelSnapshot(name="stuck", step_seconds=130.0)
STARVED = ModelSnapshot(name="starved", queued=4, ready_seconds=200, progress_seconds=150)
LOST = ModelSnapshot(name="lost", consecutive_failures=5, failures=8, last_failure="Xid 79")


@pytest.mark.parametrize(
    ("snapshot", "reasons"),
    [
        (Snapshot(), []),
        (Snapshot(models=[FINE], late_seconds=4.9), []),
        (Snapshot(models=[FINE], late_seconds=5.1), ["the loop was 5.1 s late"]),
        (Snapshot(models=[FINE], draining=True), ["draining: nothing new is taken"]),
        (
            Snapshot(models=[FINE, STUCK]),
            ["model stuck is stalled: a step has been running for 130.0 s"],
        ),
        (
            Snapshot(models=[STARVED]),
            ["model starved is stalled: 4 passes wait and nothing has run for 150.0 s"],
        ),
        (
            Snapshot(models=[LOST, FINE]),
            ["model lost is failing: 5 steps were lost, the last: Xid 79"],
        ),
    ],
)
def test_a_server_is_unhealthy_for_a_reason(snapshot: Snapshot, reasons: list[str]) -> None:
    report = judge(snapshot, BOUNDS)

    assert report.healthy == (not reasons)
    assert report.body["healthy"] == report.healthy
    assert report.body["reasons"] == reasons
    assert list(report.body["models"]) == [model.name for model in snapshot.models]


def test_the_report_is_json() -> None:
    body = json.loads(json.dumps(judge(Snapshot(models=[STUCK, LOST]), BOUNDS).body))

    assert body["models"]["stuck"] == {
        "state": "stalled",
        "queued": 0,
        "step_seconds": 130.0,
        "progress_seconds": 0.0,
        "failures": 0,
        "consecutive_failures": 0,
        "last_failure": None,
    }
    assert body["models"]["lost"]["last_failure"] == "Xid 79"
    assert body["loop_late_seconds"] == 0.0


@attrs.define
class Facts:
    """Of a device that is watched."""

    running_since: float | None = None
    failures: int = 0
    consecutive_failures: int = 0
    last_failure: str = ""
    overdue: bool = False

    def stalled(self, now: float, /) -> bool:
        return self.overdue


async def _say(_: list[str]) -> None:
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.fill("a question")
    await context.step(inferlet.Greedy())


async def test_an_engine_is_looked_at_while_it_works() -> None:
    metrics = Metrics()
    health = Health(metrics, BOUNDS)
    device = SimulatedGpu()
    device.fail_next(SlowBatch(factor=100_000))
    facts = metrics.model(device.runner.info).device = Facts()
    engine_open = open_engine([device], offload=inline, observe=metrics.model, guests=metrics)
    async with engine_open as engine, trio.open_nursery() as nursery:
        await trio.sleep(1000)
        began = trio.current_time()
        before = health.report(began).body["models"]["simulated"]
        nursery.start_soon(run_native, engine, _say)
        await trio.sleep(60)
        facts.running_since = began
        during = health.report(trio.current_time())
        await trio.sleep(100)
        late = health.report(trio.current_time())
        facts.overdue = True
        given_up = health.report(trio.current_time())
        nursery.cancel_scope.cancel()

    assert (before["state"], before["progress_seconds"]) == ("idle", 1000)
    assert during.healthy
    assert during.body["models"]["simulated"] | {"failures": 0} == {
        "state": "busy",
        "queued": 1,
        "step_seconds": 60.0,
        "progress_seconds": 60.0,
        "failures": 0,
        "consecutive_failures": 0,
        "last_failure": None,
    }
    assert [late.healthy, given_up.healthy] == [False, False]
    assert health.report(trio.current_time(), draining=True).body["draining"]
