"""A device that loses what is no step: those it concerns end, and the others go on (F7, R5)."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from trio.testing import wait_all_tasks_blocked

from pie.actors.persistence import StateFolder
from pie.errors import GuestError, PassFailed
from pie.ids import InstanceId, Pointer
from pie.messages import AllocatePointers, EndInstance, ExportPointers, FreePointers
from pie.offload import inline
from pie.testing import Fault, HashModel, LinearTiming, LostBatch, SimulatedGpu, SlowBatch

from .keeping import PAGES, continuation, expected, export, files, import_, prefill, write_one
from .scheduling import PAGE, Bench, a_pass, scheduler_bench, tokens_of

FINE = SlowBatch(1.0)
LOST: tuple[Fault, ...] = (LostBatch("no bus"), LostBatch("no bus"))
"""It is asked twice."""


class _SlowMoves(LinearTiming):
    def move_seconds(self, pages: int, /) -> float:
        return 1.0


def _gpu() -> SimulatedGpu:
    return SimulatedGpu(HashModel(pages=4), _SlowMoves())


async def _written(bench: Bench, me: InstanceId, count: int) -> tuple[Pointer, ...]:
    """Pages with something in them; the instance is idle then."""
    pages = await bench.allocate(me, count)
    await tokens_of(bench.submit(me, a_pass([7] * 16 * count, pages, 16 * count)))
    return pages


async def test_who_needs_room_ends_when_pages_cannot_move_out() -> None:
    """What is in them is still there: nobody else notices."""
    gpu = _gpu()
    async with scheduler_bench(gpu.runner, run=gpu, host_pages=8) as bench:
        idle, me, later = (bench.open(number) for number in range(3))
        pages = await _written(bench, idle, 3)
        gpu.fail_next_call(*LOST)
        with pytest.raises(PassFailed, match="could not move to host memory: no bus"):
            await bench.allocate(me, 2)
        (error,) = bench.evictions
        assert "no bus" in str(error)
        bench.service.tell(EndInstance(me, drain=False))
        assert await tokens_of(bench.submit(idle, a_pass([1], pages, 48)))
        assert len(await bench.allocate(later, 2)) == 2
        assert (await bench.stats()).moved_out == 1


async def test_a_request_that_was_granted_meanwhile_is_not_given_up() -> None:
    """Somebody let go of pages while they could not be read."""
    gpu = _gpu()
    async with scheduler_bench(gpu.runner, run=gpu, host_pages=8) as bench:
        idle, me = bench.open(0), bench.open(1)
        pages = await _written(bench, idle, 3)
        gpu.fail_next_call(*LOST)
        question = AllocatePointers(me, PAGE, 2)
        bench.service.tell(question)
        await wait_all_tasks_blocked()
        assert not question.reply.ready()
        bench.service.tell(FreePointers(idle, PAGE, pages[:1]))
        assert len(await question.reply.wait()) == 2
        await bench.stats()
    assert bench.evictions == []


async def test_passes_that_need_a_page_fail_when_it_is_lost_on_its_way_back() -> None:
    """Those that wait for it, and those that read it later; what is written anew is good."""
    gpu = _gpu()
    async with scheduler_bench(gpu.runner, run=gpu, host_pages=8) as bench:
        me, other = bench.open(0), bench.open(1)
        pages = await _written(bench, me, 3)
        theirs = await _written(bench, other, 3)  # two of the pages move out for it
        gpu.fail_next_call(FINE, *LOST)
        text = "^a KV page was lost on its way back from host memory: no bus"
        with pytest.raises(PassFailed, match=text):
            await bench.submit(me, a_pass([1], pages, 48)).reply.wait()
        with pytest.raises(PassFailed, match=text):
            await bench.submit(me, a_pass([1], pages[:1], 16)).reply.wait()
        assert await tokens_of(bench.submit(me, a_pass([1], pages[:1], 1)))
        with pytest.raises(PassFailed, match=text):
            await bench.service.ask(EndInstance(me, drain=True))
        assert await tokens_of(bench.submit(other, a_pass([1], theirs, 48)))
    assert bench.evictions == []


async def test_nobody_sees_what_was_in_the_page_that_should_have_been_overwritten() -> None:
    """Contract R3: its number had another owner while it was away."""
    gpu = _gpu()
    async with scheduler_bench(gpu.runner, run=gpu, host_pages=8) as bench:
        me, other = bench.open(0), bench.open(1)
        pages = await _written(bench, me, 3)
        await _written(bench, other, 3)
        gpu.fail_next_call(FINE, *LOST)
        with pytest.raises(PassFailed):
            await bench.submit(me, a_pass([1], pages, 48)).reply.wait()
        held = bench.scheduler._table._spaces[me, PAGE].held
        lost = {
            page.number for page in held.values() if page.spoiled and page.spoiled[:2] == (0, 16)
        }
        assert len(lost) == 2
        assert lost <= bench.scheduler._table.pools[PAGE].stale


async def test_an_export_that_loses_a_page_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    """With a warning; who imported it just then meets the failure in its passes."""
    gpu = _gpu()
    async with scheduler_bench(gpu.runner, run=gpu, host_pages=8) as bench:
        exporter, other, me, late = (bench.open(number) for number in range(4))
        await export(bench, exporter)
        await bench.service.ask(EndInstance(exporter, drain=False))
        bench.service.tell(FreePointers(other, PAGE, await bench.allocate(other, 3)))
        gpu.fail_next_call(*LOST)
        pages = await import_(bench, me)
        with pytest.raises(PassFailed, match="lost on its way back"):
            await continuation(bench, me, pages)
        with pytest.raises(GuestError, match="nothing is exported as 'prefix'"):
            await import_(bench, late)

    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.getMessage() == (
        "export 'prefix' of user local is gone: "
        "a KV page was lost on its way back from host memory: no bus"
    )


async def test_an_export_in_a_file_is_read_from_it_again(tmp_path: Path) -> None:
    """Contract R7: the file has not lost anything."""
    state, gpu = StateFolder(tmp_path, inline), _gpu()
    await write_one(state)
    async with scheduler_bench(gpu.runner, run=gpu, state=state) as bench:
        first, second = bench.open(0), bench.open(1)
        gpu.fail_next_call(*LOST)
        pages = await import_(bench, first)
        with pytest.raises(PassFailed, match="lost on its way back"):
            await continuation(bench, first, pages)
        bench.service.tell(EndInstance(first, drain=False))
        again = await import_(bench, second)
        assert await continuation(bench, second, again) == await expected()
    assert len(files(state)) == 1


async def test_an_export_that_cannot_be_read_is_not_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state, gpu = StateFolder(tmp_path, inline), _gpu()
    async with scheduler_bench(gpu.runner, run=gpu, state=state) as bench:
        me = bench.open()
        pages = await prefill(bench, me)
        gpu.fail_next_call(*LOST)
        with pytest.raises(PassFailed, match="no bus"):
            await bench.service.ask(ExportPointers(me, PAGE, pages, "prefix"))
        await bench.service.ask(ExportPointers(me, PAGE, pages, "prefix"))
    assert len(files(state)) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "export 'prefix' of user local is gone: no bus"
    ]


async def test_an_export_that_loses_a_page_before_it_is_saved_is_not_kept(tmp_path: Path) -> None:
    """Its pages were out when it was exported, and are lost as they come back to be saved."""
    state, gpu = StateFolder(tmp_path, inline), _gpu()
    async with scheduler_bench(gpu.runner, run=gpu, state=state, host_pages=8) as bench:
        me, other = bench.open(0), bench.open(1)
        pages = await _written(bench, me, PAGES)
        bench.service.tell(FreePointers(other, PAGE, await _written(bench, other, 3)))
        gpu.fail_next_call(*LOST)
        waits = bench.submit(me, a_pass([1], pages, 48))  # brings them back
        question = ExportPointers(me, PAGE, pages[:2], "prefix")
        bench.service.tell(question)
        for failing in (waits, question):
            with pytest.raises(PassFailed, match="lost on its way back"):
                await failing.reply.wait()
        with pytest.raises(GuestError, match="nothing is exported"):
            await import_(bench, other)
        await bench.stats()
    assert files(state) == []
