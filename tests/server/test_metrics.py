"""What Prometheus is told is what the engine did."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import attrs
import inferlet
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from pie.config import EngineConfig, Scheduling
from pie.engine import Engine, open_engine
from pie.errors import Closed
from pie.offload import inline
from pie.server.buckets import SECONDS, Buckets
from pie.server.catalogue import ENTRIES
from pie.server.counters import Refusal, ServerState
from pie.server.families import Kind
from pie.server.lateness import RECENT, Lateness
from pie.server.metrics import Metrics
from pie.testing import HashModel, LinearTiming, LostBatch, SimulatedGpu, run_native

STEP, ROW = LinearTiming().step_seconds, LinearTiming().row_seconds
IDLE = ServerState()


@attrs.frozen
class Scrape:
    """What a client reads."""

    samples: Mapping[tuple[str, tuple[tuple[str, str], ...]], float]

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples[name, tuple(sorted(labels.items()))]

    @classmethod
    def of(cls, text: bytes, *, openmetrics: bool = False) -> Scrape:
        parse = parse_openmetrics if openmetrics else parse_text
        return cls(
            {
                (sample.name, tuple(sorted(sample.labels.items()))): sample.value
                for family in parse(text.decode())
                for sample in family.samples
            }
        )


async def scrape(metrics: Metrics, engine: Engine, state: ServerState = IDLE) -> Scrape:
    return Scrape.of(await metrics.render(engine, state))


async def say(arguments: list[str]) -> None:
    """Fill a prompt of so many letters and decode so many tokens."""
    letters, tokens = map(int, arguments)
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.fill("x" * letters)
    for _ in range(tokens):
        await context.step(inferlet.Greedy())


async def fail(_: list[str]) -> None:
    raise RuntimeError("no luck")


async def wait(_: list[str]) -> None:
    await inferlet.sleep(1000)


def observed(
    metrics: Metrics, *devices: SimulatedGpu, config: EngineConfig | None = None
) -> AbstractAsyncContextManager[Engine]:
    return open_engine(devices, config, offload=inline, observe=metrics.model, guests=metrics)


async def test_the_figures_are_those_of_the_run() -> None:
    metrics, device = Metrics(), SimulatedGpu(HashModel("small"))
    async with observed(metrics, device) as engine:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(run_native, engine, say, ["3", "7"])
        seen = await scrape(metrics, engine)
        (stats,) = (await engine.stats()).values()

    assert seen("pie_sampled_tokens_total", model="small") == 35
    assert seen("pie_passes_total", model="small") == 35
    assert seen("pie_rows_total", model="small") == 5 * (3 + 6)
    assert seen("pie_steps_total", model="small") == len(device.steps) == 7
    assert seen("pie_decode_steps_total", model="small") == 6
    assert seen("pie_decode_rows_total", model="small") == 30
    assert seen("pie_busy_seconds_total", model="small") == pytest.approx(7 * STEP + 45 * ROW)
    assert seen("pie_pages", model="small", state="free") == stats.pages
    assert seen("pie_pages", model="small", state="used") == 0
    assert seen("pie_pages_peak", model="small") == 5
    assert seen("pie_launches_total") == 5
    assert seen("pie_ended_instances_total", event="completed") == 5


async def test_what_runs_is_seen_while_it_runs() -> None:
    metrics = Metrics()
    async with observed(metrics, SimulatedGpu()) as engine, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(run_native, engine, say, ["20", "1000"])
        await trio.sleep(1)
        seen = await scrape(metrics, engine, ServerState(connections=2, instances={"Attached": 3}))
        queued = metrics.models["simulated"].queued_of()
        nursery.cancel_scope.cancel()

    assert seen("pie_queued_passes", model="simulated") == 3
    assert seen("pie_model_instances", model="simulated") == 3
    assert seen("pie_pages", model="simulated", state="used") > 3
    assert seen("pie_instances", status="attached") == 3
    assert seen("pie_instances", status="detached") == 0
    assert seen("pie_connections") == 2
    assert queued == {0: 1, 1: 1, 2: 1}


async def test_passes_are_timed_from_their_submission() -> None:
    """The second guest's passes wait for the step in which the first one's runs."""
    metrics = Metrics()
    config = EngineConfig(scheduling=Scheduling(dispatch="eager"))
    async with observed(metrics, SimulatedGpu(), config=config) as engine:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_native, engine, say, ["1", "1"])
            await trio.sleep(STEP / 2)
            nursery.start_soon(run_native, engine, say, ["1", "1"])
        seen = await scrape(metrics, engine)

    waited = STEP / 2 + ROW
    assert seen("pie_pass_queue_seconds_count", model="simulated") == 2
    assert seen("pie_pass_queue_seconds_sum", model="simulated") == pytest.approx(waited)
    assert seen("pie_pass_queue_seconds_bucket", model="simulated", le="0.0001") == 1
    assert seen("pie_pass_queue_seconds_bucket", model="simulated", le="0.005") == 1
    assert seen("pie_pass_queue_seconds_bucket", model="simulated", le="0.007") == 2
    assert seen("pie_pass_seconds_count", model="simulated") == 2
    assert seen("pie_pass_seconds_sum", model="simulated") == pytest.approx(
        2 * (STEP + ROW) + waited
    )


async def test_a_pass_that_is_split_over_steps_is_one_pass() -> None:
    metrics = Metrics()
    config = EngineConfig(scheduling=Scheduling(step_tokens=64))
    device = SimulatedGpu()
    async with observed(metrics, device, config=config) as engine:
        await run_native(engine, say, ["300", "1"])
        seen = await scrape(metrics, engine)

    assert len(device.steps) > 1
    assert seen("pie_pass_queue_seconds_count", model="simulated") == 1
    assert seen("pie_pass_queue_seconds_sum", model="simulated") == pytest.approx(0, abs=1e-6)
    assert seen("pie_pass_seconds_count", model="simulated") == 1
    assert seen("pie_pass_seconds_sum", model="simulated") == pytest.approx(
        seen("pie_busy_seconds_total", model="simulated")
    )


async def test_a_lost_step_that_is_repeated_counts_its_passes_once() -> None:
    """It is lost, and each of its instances has it again alone; the second one in vain."""
    metrics, device = Metrics(), SimulatedGpu()
    device.fail_next(LostBatch(), LostBatch())
    async with observed(metrics, device) as engine:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(run_native, engine, say, ["2", "1"])
        seen = await scrape(metrics, engine)

    assert seen("pie_passes_total", model="simulated") == 2
    assert seen("pie_failed_passes_total", model="simulated") == 1
    assert seen("pie_pass_seconds_count", model="simulated") == 1
    assert seen("pie_pass_queue_seconds_count", model="simulated") == 1
    assert seen("pie_ended_instances_total", event="exception") == 1


async def test_instances_are_counted_by_how_they_end() -> None:
    metrics = Metrics()
    async with observed(metrics, SimulatedGpu()) as engine:
        await run_native(engine, say, ["1", "1"])
        await run_native(engine, fail)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_native, engine, wait)
            await trio.sleep(1)
            (running,) = await engine.instances()
            await engine.terminate(running.instance)
        seen = await scrape(metrics, engine)

    assert seen("pie_launches_total") == 3
    endings = ("completed", "aborted", "exception", "server_error", "out_of_resources")
    assert [seen("pie_ended_instances_total", event=event) for event in endings] == [1, 1, 1, 0, 0]


async def test_the_device_tells_of_its_steps() -> None:
    metrics = Metrics()
    device = SimulatedGpu()
    model = metrics.model(device.runner.info)
    async with observed(metrics, device) as engine:
        await run_native(engine, say, ["5", "1"])
        model.step_seconds.add(0.02)
        model.step_rows.add(5)
        seen = await scrape(metrics, engine)

    assert seen("pie_step_seconds_bucket", model="simulated", le="0.018") == 0
    assert seen("pie_step_seconds_bucket", model="simulated", le="0.022") == 1
    assert seen("pie_step_rows_sum", model="simulated") == 5


async def test_models_are_told_apart_by_their_names() -> None:
    metrics = Metrics()
    names = ("one", 'a "quoted"\nname \\')
    devices = [SimulatedGpu(HashModel(name)) for name in names]
    async with observed(metrics, *devices) as engine:
        await run_native(engine, say, ["1", "4"])
        seen = await scrape(metrics, engine)

    assert [seen("pie_sampled_tokens_total", model=name) for name in names] == [4, 0]


async def test_two_servers_in_a_process_count_for_themselves() -> None:
    first, second = Metrics(), Metrics()
    async with (
        observed(first, SimulatedGpu()) as engine,
        observed(second, SimulatedGpu()) as other,
    ):
        await run_native(engine, say, ["1", "3"])
        first.counters.refusals[Refusal.DRAINING] += 2
        busy, idle = await scrape(first, engine), await scrape(second, other)

    for seen, tokens, refusals in (busy, 3, 2), (idle, 0, 0):
        assert seen("pie_sampled_tokens_total", model="simulated") == tokens
        assert seen("pie_refusals_total", reason="draining") == refusals


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text",
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;q=0.2",
        "application/openmetrics-text; version=nonsense",
    ],
)
async def test_openmetrics_says_the_same(accept: str) -> None:
    metrics = Metrics()
    async with observed(metrics, SimulatedGpu()) as engine:
        await run_native(engine, say, ["2", "3"])
        text = await metrics.render(engine, IDLE, accept=accept)
        plain = await scrape(metrics, engine)
    seen = Scrape.of(text, openmetrics=True)

    assert metrics.content_type(accept).startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith(b"# EOF\n")
    assert seen.samples.keys() == plain.samples.keys()
    assert seen("pie_sampled_tokens_total", model="simulated") == 3


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain", "text/plain;version=0.0.4"])
def test_the_text_format_is_for_everybody_else(accept: str) -> None:
    assert Metrics().content_type(accept) == "text/plain; version=0.0.4; charset=utf-8"


async def test_an_engine_that_has_ended_has_no_metrics() -> None:
    metrics = Metrics()
    async with observed(metrics, SimulatedGpu()) as engine:
        pass

    with pytest.raises(Closed):
        await metrics.render(engine, IDLE)


def test_names_follow_the_rules_of_prometheus() -> None:
    """A prefix, units in full, `_total` for what only grows and for nothing else."""
    for entry in ENTRIES:
        assert entry.name.startswith("pie_")
        assert entry.name.endswith("_total") == (entry.kind is Kind.COUNTER), entry.name
        assert not entry.name.endswith(("_ms", "_percent", "_count", "_sum", "_bucket"))
        assert entry.help.endswith(".")
        assert entry.kind is not Kind.HISTOGRAM or entry.name.endswith(("_seconds", "_rows"))


@given(st.lists(st.floats(0, 200)))
def test_buckets_count_as_the_client_library_does(values: list[float]) -> None:
    reference = Histogram("x", "", buckets=SECONDS, registry=CollectorRegistry())
    buckets = Buckets(SECONDS)
    for value in values:
        reference.observe(value)
        buckets.add(value)

    (family,) = reference.collect()
    expected = [(s.labels["le"], s.value) for s in family.samples if s.name == "x_bucket"]
    assert buckets.cumulative() == expected
    assert buckets.count == len(values)


@given(st.lists(st.integers(0, 20_000)), st.integers(0, 10_000))
def test_times_since_many_moments_are_counted_as_one_by_one(moments: list[int], later: int) -> None:
    """In quarters of milliseconds, which are exact at this distance from zero."""
    unit = 2.0**-12
    ordered = sorted(1000 + moment * unit for moment in moments)
    now = (ordered[-1] if ordered else 1000) + later * unit
    one_by_one, at_once = Buckets(SECONDS), Buckets(SECONDS)
    for moment in ordered:
        one_by_one.add(now - moment)
    at_once.add_since(ordered, now)

    assert at_once.counts == one_by_one.counts
    assert at_once.total == pytest.approx(one_by_one.total, abs=1e-6)


async def test_a_loop_that_is_held_up_is_late() -> None:
    lateness = Lateness()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lateness.run)
        await trio.sleep(3.05)
        nursery.cancel_scope.cancel()

    assert lateness.seconds.count == 30
    assert lateness.worst == 0

    lateness.note(2.5)
    assert lateness.worst == 2.5
    for _ in range(RECENT):
        lateness.note(0.0)
    assert lateness.worst == 0
    assert lateness.seconds.total == 2.5


def test_the_guide_has_every_metric_with_its_kind_and_labels() -> None:
    """No more and no less than a server gives; and the labels are those of its samples."""
    page = Path(__file__).parents[2] / "docs" / "operations.md"
    rows = re.findall(r"^\| `(pie_\w+)` \| (\w+) \| ([\w, ]*)\| (.+) \|$", page.read_text(), re.M)
    documented = {name: (kind, re.findall(r"\w+", labels)) for name, kind, labels, _ in rows}

    assert documented == {entry.name: (entry.kind.value, list(entry.labels)) for entry in ENTRIES}
