"""A trace streams to disk, whole in every ending but a kill, and never half a line but the last."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import inferlet
import pytest
import trio
import trio.testing
from inferlet.entry import Main

from pie.engine import open_engine
from pie.errors import UsageError
from pie.ids import EventCode
from pie.offload import inline
from pie.testing import SimulatedGpu, run_native
from pie.trace import tracing
from pie.trace.format import Kind, Lines
from pie.trace.ranges import from_ranges, ranges
from pie.trace.reading import read
from pie.trace.writer import BACKLOG, CHUNK, writing

from .recording import a_guest

T = TypeVar("T")
HEADER = '{"ph":"M","name":"pie_trace","pid":1,"tid":0,"ts":0,"args":{}}'
COUNT = Kind.PAGES, 1, 0.0, 1, 2, 3


async def _traced(
    path: Path,
    *guests: Main,
    then: Exception | None = None,
    codes: list[EventCode] | None = None,
) -> None:
    async with (
        tracing(path, offload=inline) as tracer,
        open_engine(
            [SimulatedGpu()], offload=inline, observe=tracer.model, guests=tracer
        ) as engine,
    ):
        for main in guests:
            outcome = await run_native(engine, main)
            if codes is not None:
                codes.append(outcome.event.code)
        if then is not None:
            raise then


async def test_a_chunk_is_on_disk_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    async with writing(path, HEADER, Lines(0.0), inline) as writer:
        for _ in range(CHUNK - 1):
            writer.put(COUNT)
        await trio.testing.wait_all_tasks_blocked()
        before = path.read_text().count("\n")
        writer.put(COUNT)
        await trio.testing.wait_all_tasks_blocked()
        after = path.read_text().count("\n")

    assert before <= 1  # the header may be in the file's buffer
    assert after == CHUNK + 1
    assert len(json.loads(path.read_text())) == CHUNK + 1


async def test_the_backlog_is_bounded_however_slow_the_thread_is(tmp_path: Path) -> None:
    """A thread that never gets to write: the loop does it itself."""

    async def stuck(function: Callable[..., T], /, *arguments: object) -> T:
        if function.__name__ == "_write":
            await trio.sleep_forever()
        return function(*arguments)

    path = tmp_path / "t.json"
    async with writing(path, HEADER, Lines(0.0), stuck) as writer:
        for _ in range(BACKLOG + 5):
            writer.put(COUNT)
        assert len(writer._events) == 5
        assert path.read_text().count("\n") == BACKLOG + 1

    assert len(json.loads(path.read_text())) == BACKLOG + 6


async def test_a_cancelled_run_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    with trio.move_on_after(1.0):
        await _traced(path, a_guest(5, 1_000_000))

    record = read(path)
    assert record.complete
    assert len(json.loads(path.read_text())) > 100
    passes = [request for request in record.requests if request.name == "pass"]
    assert [number for number, p in enumerate(passes) if "error" in p.args] == [len(passes) - 1]
    assert record.requests[-1].name == "end"


async def test_a_program_that_crashes_leaves_a_whole_file(tmp_path: Path) -> None:
    async def crash(_: list[str]) -> None:
        await inferlet.Context.create(await inferlet.get_model())
        raise ZeroDivisionError

    path = tmp_path / "t.json"
    await _traced(path, crash, a_guest(5, 3))

    texts = [e["args"]["event"] for e in json.loads(path.read_text()) if e["name"] == "ended"]
    assert texts == ["EXCEPTION", "COMPLETED"]


async def test_an_error_around_the_engine_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    with pytest.raises(BaseExceptionGroup):
        await _traced(path, a_guest(5, 3), then=ZeroDivisionError())

    assert read(path).complete


async def test_a_place_that_cannot_be_written_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot write the trace .*none/t.json: No such file"):
        async with tracing(tmp_path / "none" / "t.json", offload=inline):
            raise AssertionError("never entered")


async def test_a_full_disk_ends_the_trace_and_not_the_run() -> None:
    codes: list[EventCode] = []
    with pytest.raises(UsageError, match="cannot write the trace /dev/full: No space left"):
        await _traced(Path("/dev/full"), a_guest(5, 600), codes=codes)

    assert codes == [EventCode.COMPLETED]


def test_ranges_and_back() -> None:
    numbers = [4, 5, 6, 9, 1, 2, 2]

    assert ranges(numbers) == [4, 3, 9, 1, 1, 2, 2, 1]
    assert from_ranges(ranges(numbers)) == numbers
    assert ranges([]) == []
