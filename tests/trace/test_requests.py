"""Every kind of request is recorded and can be made again: slots, exports, barriers, endings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import inferlet
import pytest
import trio
from inferlet import host
from inferlet.native import HOST

from pie.config import EngineConfig, Scheduling
from pie.engine import Engine, open_engine
from pie.ids import EventCode
from pie.offload import inline
from pie.programs import NativeProgram
from pie.testing import HashModel, LinearTiming, LostBatch, SimulatedGpu, outcome_of, run_native
from pie.testing.determinism import run_simulated
from pie.testing.replay import BlankRunner, Setting, replay, replay_under
from pie.trace import tracing
from pie.trace.reading import Record, read

from .recording import a_guest, services

PAGE, EMBEDDING, ADAPTER = 0, 1, 2
Job = Callable[[Engine], Awaitable[None]]


def _recorded(
    path: Path, job: Job, *devices: SimulatedGpu, config: EngineConfig | None = None
) -> Record:
    async def run() -> None:
        async with (
            tracing(path, config, offload=inline) as tracer,
            open_engine(
                devices or (SimulatedGpu(),),
                config,
                offload=inline,
                observe=tracer.model,
                guests=tracer,
            ) as engine,
        ):
            await job(engine)

    run_simulated(run, seed=0)
    return read(path)


def _names(record: Record) -> list[str]:
    return [request.name for request in record.requests]


def _assert_repeats(record: Record) -> None:
    """Every request is made and answered at its time."""
    run = replay(record, lambda _, info: SimulatedGpu(BlankRunner(info), LinearTiming()))
    assert run.given_up == {}
    then, now = services(record), sorted(run.services, key=lambda service: service.op)
    assert [s.op for s in then] == [s.op for s in now]
    assert [s.answered for s in then] == pytest.approx([s.answered for s in now], abs=5e-9)


async def _queue() -> Any:
    return await host.create_queue((await inferlet.get_model()).handle)


async def _call(interface: str, function: str, *arguments: Any) -> Any:
    return await HOST.get().call(interface, function, *arguments)


async def _submit(queue: Any, pages: list[int], tokens: list[int], length: int) -> Any:
    work = await host.create_pass(queue)
    await host.input_tokens(work, tokens, list(range(length - len(tokens), length)))
    await host.kv_cache(work, pages, (length - 1) % 16 + 1)
    await host.output_tokens(work, [len(tokens) - 1], 0.0)
    return await host.execute(work)


def test_what_was_spare_is_given_again(tmp_path: Path) -> None:
    async def main(_: list[str]) -> None:
        queue = await _queue()
        given = [await host.try_allocate(queue, PAGE, count) for count in (9, 9, 9)]
        pages = [page for some in given for page in some]
        await host.ready(await host.pass_pollable(await _submit(queue, pages, [65] * 64, 64)))

    async def job(engine: Engine) -> None:
        assert (await run_native(engine, main)).event.code is EventCode.COMPLETED

    record = _recorded(tmp_path / "t.json", job, SimulatedGpu(HashModel(pages=8)))

    given = [request.args["got"] for request in record.requests[:3]]
    assert given == [[0, 2], [2, 1], [3, 1]]
    _assert_repeats(record)


def test_embeddings_are_stored_and_read_again(tmp_path: Path) -> None:
    async def main(_: list[str]) -> None:
        queue = await _queue()
        pages, slots = await host.allocate(queue, PAGE, 1), await host.allocate(queue, EMBEDDING, 2)
        work = await host.create_pass(queue)
        await host.input_tokens(work, [65, 66], [0, 1])
        await host.kv_cache(work, pages, 2)
        await host.output_embeddings(work, slots, [0, 1])
        await host.execute(work)
        again = await host.create_pass(queue)
        await host.input_embeddings(again, slots, [2, 3])
        await host.kv_cache(again, pages, 4)
        await host.output_tokens(again, [1], 0.0)
        await host.ready(await host.pass_pollable(await host.execute(again)))
        vectors = await _call("pie:ext/ext", "read-embeddings", queue, slots)
        await host.ready(await _call("pie:ext/ext", "[method]embedding-result.pollable", vectors))
        await host.deallocate(queue, EMBEDDING, slots)

    async def job(engine: Engine) -> None:
        assert (await run_native(engine, main)).event.code is EventCode.COMPLETED

    record = _recorded(tmp_path / "t.json", job)

    assert _names(record) == ["allocate", "allocate", "pass", "pass", "command", "free", "end"]
    first, second = (request.args for request in record.requests[2:4])
    assert first["stores"] == second["reads"] == [0, 1]
    assert second["data"] == second["after"] == [record.requests[2].op]
    _assert_repeats(record)


def test_adapters_are_uploaded_and_used(tmp_path: Path) -> None:
    async def main(_: list[str]) -> None:
        queue = await _queue()
        pages, slots = await host.allocate(queue, PAGE, 1), await host.allocate(queue, ADAPTER, 1)
        blob = await host.new_blob(b"hash of an adapter")
        await _call("inferlet:adapter/common", "upload-adapter", queue, slots[0], "x", blob)
        work = await host.create_pass(queue)
        await host.input_tokens(work, [65], [0])
        await host.kv_cache(work, pages, 1)
        await host.output_tokens(work, [0], 0.0)
        await _call("inferlet:adapter/common", "set-adapter", work, slots[0])
        await host.ready(await host.pass_pollable(await host.execute(work)))

    async def job(engine: Engine) -> None:
        assert (await run_native(engine, main)).event.code is EventCode.COMPLETED

    record = _recorded(tmp_path / "t.json", job)

    assert "command" in _names(record)
    assert [r.args["adapter"] for r in record.requests if r.name == "pass"] == [0]
    _assert_repeats(record)


def test_exports_are_shared_again_and_copied_on_write(tmp_path: Path) -> None:
    async def give(_: list[str]) -> None:
        queue = await _queue()
        pages = await host.allocate(queue, PAGE, 2)
        await host.ready(await host.pass_pollable(await _submit(queue, pages, [65] * 20, 20)))
        await host.export_resources(queue, PAGE, pages, "prompt")
        await host.deallocate(queue, PAGE, pages)

    async def take(_: list[str]) -> None:
        queue = await _queue()
        pages = await host.import_resources(queue, PAGE, "prompt")
        for length in range(21, 25):
            await host.ready(await host.pass_pollable(await _submit(queue, pages, [66], length)))
        result = await host.synchronize(queue)
        await host.ready(await host.synchronization_pollable(result))

    async def clean(_: list[str]) -> None:
        await host.release_exported(await _queue(), PAGE, "prompt")

    async def job(engine: Engine) -> None:
        assert (await run_native(engine, give)).event.code is EventCode.COMPLETED
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(run_native, engine, take)
        assert (await run_native(engine, clean)).event.code is EventCode.COMPLETED

    # The two exported pages and one copy for each who writes: not one page to spare.
    device = SimulatedGpu(HashModel(pages=5))
    record = _recorded(tmp_path / "t.json", job, device)

    names = _names(record)
    assert [names.count(name) for name in ("export", "import", "release", "synchronize")] == [
        1, 3, 1, 3,
    ]  # fmt: skip
    _assert_repeats(record)
    fewer = replay_under(record, Setting(pages=4, host_pages=0))
    assert fewer.given_up == {}
    assert fewer.figures.seconds > max(service.answered for service in services(record))


def test_pages_that_one_instance_shares_are_shared_again(tmp_path: Path) -> None:
    async def fork(_: list[str]) -> None:
        queue = await _queue()
        pages = await host.allocate(queue, PAGE, 1)
        await _submit(queue, pages, [65] * 9, 9)
        twins = await host.share_pages(queue, pages)
        for each in (twins, pages):
            await host.ready(await host.pass_pollable(await _submit(queue, each, [66], 10)))

    async def job(engine: Engine) -> None:
        assert (await run_native(engine, fork)).event.code is EventCode.COMPLETED

    record = _recorded(tmp_path / "t.json", job)

    (shared,) = [request for request in record.requests if request.name == "share"]
    assert (shared.args["given"], shared.args["got"]) == ([0, 1], [1, 1])
    _assert_repeats(record)


def test_an_import_waits_for_its_export_on_a_slower_machine(tmp_path: Path) -> None:
    """Whoever imports was launched when the export was there: no answer tells it so."""

    async def give(_: list[str]) -> None:
        queue = await _queue()
        pages = await host.allocate(queue, PAGE, 1)
        await host.ready(await host.pass_pollable(await _submit(queue, pages, [65] * 9, 9)))
        await host.export_resources(queue, PAGE, pages, "prompt")

    async def take(_: list[str]) -> None:
        queue = await _queue()
        pages = await host.import_resources(queue, PAGE, "prompt")
        await host.release_exported(queue, PAGE, "prompt")
        await host.ready(await host.pass_pollable(await _submit(queue, pages, [66], 10)))

    async def job(engine: Engine) -> None:
        for _ in range(3):
            assert (await run_native(engine, give)).event.code is EventCode.COMPLETED
            assert (await run_native(engine, take)).event.code is EventCode.COMPLETED

    record = _recorded(tmp_path / "t.json", job)

    def slow(seconds: float) -> Any:
        timing = LinearTiming(step_seconds=seconds)
        return replay(record, lambda _, info: SimulatedGpu(BlankRunner(info), timing))

    for run in (slow(0.5), slow(0.0001)):
        assert run.given_up == {}
        passes = sorted(run.services, key=lambda service: service.op)
        assert len(passes) == 6
        for given, taken in zip(passes[::2], passes[1::2], strict=True):
            assert taken.submitted >= given.answered


def test_an_import_of_what_nobody_exported_is_repeated(tmp_path: Path) -> None:
    """It fails in the record as in the replay, and its guest goes no further in either."""

    async def take(_: list[str]) -> None:
        await host.import_resources(await _queue(), PAGE, "nothing")

    async def job(engine: Engine) -> None:
        assert (await run_native(engine, take)).event.code is EventCode.EXCEPTION
        await run_native(engine, a_guest(5, 2))

    record = _recorded(tmp_path / "t.json", job)

    assert "nothing is exported as 'nothing'" in record.requests[0].args["error"]
    _assert_repeats(record)


def test_a_terminated_guest_ends_in_the_replay_too(tmp_path: Path) -> None:
    async def job(engine: Engine) -> None:
        launched = await engine.launch(NativeProgram(a_guest(5, 1000)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_native, engine, a_guest(5, 30))
            await trio.sleep(0.1234)
            await engine.terminate(launched.instance)
        assert (await outcome_of(launched)).event.code is EventCode.ABORTED

    record = _recorded(tmp_path / "t.json", job)

    ends = [request for request in record.requests if request.name == "end"]
    assert [(end.instance, end.args["drain"]) for end in ends] == [(0, False), (1, True)]
    _assert_repeats(record)


def test_a_lost_batch_is_seen_and_its_passes_run_in_the_replay(tmp_path: Path) -> None:
    async def job(engine: Engine) -> None:
        await run_native(engine, a_guest(5, 10))
        await run_native(engine, a_guest(5, 10))

    device = SimulatedGpu(HashModel(), faults={4: LostBatch()})
    record = _recorded(tmp_path / "t.json", job, device)

    assert [batch.lost for batch in record.batches].count(True) == 1
    lost = [r.op for r in record.requests if r.name == "pass" and "error" in r.args]
    run = replay_under(record, Setting())
    assert len(lost) == 1
    assert lost[0] in {service.op for service in run.services}
    assert run.figures.failed == 0


def test_two_models_are_replayed_side_by_side(tmp_path: Path) -> None:
    async def main(_: list[str]) -> None:
        for name in ("one", "two", "one"):
            context = await inferlet.Context.create(await inferlet.get_model(name))
            context.fill_tokens([65] * 10)
            for _step in range(5):
                context.fill_tokens([await context.step(inferlet.Greedy())])

    async def job(engine: Engine) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(run_native, engine, main)

    devices = [SimulatedGpu(HashModel(name)) for name in ("one", "two")]
    record = _recorded(tmp_path / "t.json", job, *devices)

    assert [facts.name for facts in record.models] == ["one", "two"]
    assert {request.model for request in record.requests if request.name == "pass"} == {0, 1}
    _assert_repeats(record)


def test_priorities_and_several_queues_are_kept(tmp_path: Path) -> None:
    async def main(_: list[str]) -> None:
        model = await inferlet.get_model()
        queues = [await host.create_queue(model.handle) for _ in range(3)]
        results = []
        for queue, priority in zip(queues, ("low", "normal", "high"), strict=True):
            await host.set_priority(queue, priority)
            pages = await host.allocate(queue, PAGE, 4)
            results += [await _submit(queue, pages, [65] * 30, 30)]
            results += [await _submit(queue, pages, [66] * 30, 60)]
        for result in results:
            await host.ready(await host.pass_pollable(result))

    async def job(engine: Engine) -> None:
        assert (await run_native(engine, main)).event.code is EventCode.COMPLETED

    config = EngineConfig(scheduling=Scheduling(step_tokens=40))
    record = _recorded(tmp_path / "t.json", job, config=config)

    passes = [request for request in record.requests if request.name == "pass"]
    assert {(p.args["queue"], p.args["priority"]) for p in passes} == {(0, 0), (1, 1), (2, 2)}
    assert [p.args["after"] for p in passes[1::2]] == [[p.op] for p in passes[::2]]
    _assert_repeats(record)
