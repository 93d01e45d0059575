"""The order of passes, barriers, urgency, failures and the end of instances."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pie.batch import Batch, BatchResult
from pie.errors import Closed, PassFailed
from pie.ids import Priority, QueueId, ResourceKind
from pie.messages import (
    AllocatePointers,
    EndInstance,
    FreePointers,
    Synchronize,
)
from pie.testing import HashModel, LinearTiming, SimulatedGpu

from .scheduling import PAGE, a_pass, alone, scheduler_bench, tokens_of


async def test_flush_then_fork_on_another_queue_sees_the_whole_prompt() -> None:
    """Contract Q1, with a prompt of three steps and the child more urgent than its parent."""
    prompt = [(i * 7) % 256 for i in range(48)]
    async with scheduler_bench(step_tokens=16) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 4)
        bench.submit(me, a_pass(prompt, pages[:3], 48, outputs=()), priority=Priority.LOW)
        child = bench.submit(me, a_pass([65], pages, 49), queue=1, priority=Priority.HIGH)
        got = await tokens_of(child)

    assert got == [await alone([*prompt, 65])]


async def test_consecutive_passes_of_a_queue_share_a_step() -> None:
    """Contract K5: a later pass may read what an earlier one writes in the same step."""
    gpu = SimulatedGpu()
    async with scheduler_bench(gpu.runner, run=gpu) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 1)
        works = [bench.submit(me, a_pass([i], pages, i + 1)) for i in range(5)]
        got = await tokens_of(*works)

    assert [step.passes for step in gpu.steps] == [5]
    assert got == [await alone(list(range(i + 1))) for i in range(5)]


async def test_a_barrier_waits_for_what_was_submitted_before_it() -> None:
    """Contract Q2."""
    async with scheduler_bench() as bench:
        me = bench.open()
        pages = await bench.allocate(me, 2)
        empty = await bench.service.ask(Synchronize(me, QueueId(0)))
        work = bench.submit(me, a_pass([1], pages[:1], 1), queue=0)
        other = bench.submit(me, a_pass([1] * 16, pages[1:], 16), queue=1)
        assert await bench.service.ask(Synchronize(me, QueueId(0))) is True
        assert work.reply.ready()
        await other.reply.wait()

    assert empty is True


async def test_a_failed_pass_fails_what_reads_its_results_and_the_barrier() -> None:
    """Contract F7, Q2: within the instance; other passes go on."""
    model, calls = HashModel(), []

    async def lose_first(batch: Batch) -> BatchResult:
        calls.append(batch.passes)
        if len(calls) == 1:
            raise PassFailed("lost")
        return model.run(batch)

    async with scheduler_bench(model, step_tokens=8, run=lose_first) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 2)
        first = bench.submit(me, a_pass(list(range(12)), pages[:1], 12))
        needs_it = bench.submit(me, a_pass([1], pages[:1], 13))
        assert await bench.service.ask(Synchronize(me, QueueId(0))) is False
        assert await bench.service.ask(Synchronize(me, QueueId(0))) is True
        with pytest.raises(PassFailed, match="lost"):
            first.reply.take()
        with pytest.raises(PassFailed, match="reads failed: lost"):
            needs_it.reply.take()
        independent = bench.submit(me, a_pass([1], pages[1:], 1), queue=1)
        await independent.reply.wait()


async def test_slots_that_a_failed_pass_should_have_written_fail_later_readers() -> None:
    """Contract F7: also those submitted afterwards, until the slots are written again."""
    model, calls = HashModel(), []

    async def lose_first(batch: Batch) -> BatchResult:
        calls.append(batch.passes)
        if len(calls) == 1:
            raise PassFailed("lost")
        return model.run(batch)

    async with scheduler_bench(model, run=lose_first) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 1)
        with pytest.raises(PassFailed, match="lost"):
            await bench.submit(me, a_pass([1, 2, 3, 4], pages, 4)).reply.wait()
        with pytest.raises(PassFailed, match="reads failed: lost"):
            await bench.submit(me, a_pass([5], pages, 5)).reply.wait()
        with pytest.raises(PassFailed, match="reads failed: lost"):
            await bench.submit(me, a_pass([6], pages, 6)).reply.wait()
        assert await tokens_of(bench.submit(me, a_pass([1, 2], pages, 2))) == [await alone([1, 2])]
        again = bench.submit(me, a_pass([3, 4, 5], pages, 5))
        assert await tokens_of(again) == [await alone([1, 2, 3, 4, 5])]


async def test_a_copy_that_was_never_made_leaves_a_usable_page() -> None:
    """Contract F7, R8: its pass failed while it waited for room."""
    model, calls = HashModel(pages=2), []

    async def lose_first(batch: Batch) -> BatchResult:
        calls.append(batch.passes)
        await trio.sleep(1)
        if len(calls) == 2:
            raise PassFailed("lost")
        return model.run(batch)

    async with scheduler_bench(model, run=lose_first) as bench:
        me = bench.open()
        shared, other = await bench.allocate(me, 2)
        await bench.submit(me, a_pass([1, 2, 3], [shared], 3)).reply.wait()
        await bench.export(me, (shared,), "x")
        lost = bench.submit(me, a_pass([9] * 16, [other], 16))
        bench.movers[me].start()
        copying = bench.submit(me, a_pass([4], [other, shared], 20))
        for message in (lost, copying):
            with pytest.raises(PassFailed):
                await message.reply.wait()
        with pytest.raises(PassFailed, match="reads failed"):
            await bench.submit(me, a_pass([4], [shared], 4)).reply.wait()
        anew = bench.submit(me, a_pass([7, 8], [shared], 2))
        await trio.sleep(5)
        assert not anew.reply.ready()
        bench.service.tell(FreePointers(me, PAGE, (other,)))
        bench.movers[me].stop()
        assert await tokens_of(anew) == [await alone([7, 8])]


async def test_urgent_passes_run_first_and_old_ones_are_not_forgotten() -> None:
    """Contract Q3: with a step for one pass at a time."""
    done: list[str] = []
    async with scheduler_bench(step_tokens=1, ageing_seconds=1.0) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 4)

        async def run(name: str, index: int, priority: Priority) -> None:
            work = bench.submit(
                me, a_pass([1], pages[index : index + 1], 1), queue=index, priority=priority
            )
            await work.reply.wait()
            done.append(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, "running", 3, Priority.LOW)
            await wait_all_tasks_blocked()
            nursery.start_soon(run, "low", 0, Priority.LOW)
            await wait_all_tasks_blocked()
            nursery.start_soon(run, "normal", 1, Priority.NORMAL)
            await wait_all_tasks_blocked()
            nursery.start_soon(run, "high", 2, Priority.HIGH)

    assert done == ["running", "high", "normal", "low"]


async def test_a_pass_that_a_more_urgent_one_waits_for_becomes_as_urgent() -> None:
    """Contract Q3: the urgent one overwrites what the low one reads, so it runs after it."""
    gpu = SimulatedGpu()
    async with scheduler_bench(gpu.runner, step_tokens=1, run=gpu) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 2)
        bench.service.activity.start()
        low = bench.submit(me, a_pass([1], pages[:1], 1), priority=Priority.LOW)
        normal = bench.submit(me, a_pass([2], pages[1:], 1), queue=1)
        high = bench.submit(me, a_pass([3], pages[:1], 1), queue=2, priority=Priority.HIGH)
        bench.service.activity.stop()
        await high.reply.wait()
        assert low.reply.ready()
        assert not normal.reply.ready()
        await normal.reply.wait()


# ---------------------------------------------------------------------- the end


async def test_a_killed_instance_gives_back_everything_once_its_step_is_over() -> None:
    """Contract R10: what runs finishes and keeps its pages until then; the rest is dropped."""
    gpu = SimulatedGpu(timing=LinearTiming(1.0))
    async with scheduler_bench(gpu.runner, step_tokens=16, run=gpu) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 2)
        running = bench.submit(me, a_pass([1] * 16, pages[:1], 16))
        waiting = bench.submit(me, a_pass([1] * 16, pages, 32))
        await trio.sleep(0.5)
        await bench.service.ask(EndInstance(me, drain=False))
        during = await bench.stats()
        with pytest.raises(Closed):
            await running.reply.wait()
        after = await bench.stats()

    with pytest.raises(Closed):
        waiting.reply.take()
    assert during.pages - during.pages_free == 1
    assert after.pages == after.pages_free
    assert after.queued == 0


async def test_a_returned_instance_is_over_when_its_last_pass_is_done() -> None:
    """Contract R10."""
    async with scheduler_bench() as bench:
        me = bench.open()
        pages = await bench.allocate(me, 1)
        work = bench.submit(me, a_pass([1], pages, 1))
        await bench.service.ask(EndInstance(me, drain=True))
        assert work.reply.ready()
        stats = await bench.stats()

    assert stats.pages == stats.pages_free
    assert stats.instances == 0


async def test_a_failure_nobody_looked_at_is_told_at_the_end() -> None:
    """Contract F7."""

    async def lose(_: Batch) -> BatchResult:
        raise PassFailed("lost")

    async with scheduler_bench(run=lose) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 1)
        bench.submit(me, a_pass([1], pages, 1, outputs=()))
        with pytest.raises(PassFailed, match="lost"):
            await bench.service.ask(EndInstance(me, drain=True))


async def test_an_ended_instance_leaves_the_line_for_pages() -> None:
    async with scheduler_bench(HashModel(pages=2)) as bench:
        holder, waiting = bench.open(0), bench.open(1)
        pages = await bench.allocate(holder, 2)
        question = AllocatePointers(waiting, PAGE, 1)
        bench.service.tell(question)
        await bench.service.ask(EndInstance(waiting, drain=False))
        with pytest.raises(Closed):
            question.reply.take()
        bench.service.tell(FreePointers(holder, PAGE, pages))
        stats = await bench.stats()

    assert stats.pages_free == 2
    assert stats.waiting == 0


async def test_embedding_slots_carry_hidden_states_in_order() -> None:
    """Contract F4, K5: a pass that takes a slot runs a step after the one that fills it."""
    gpu = SimulatedGpu()
    async with scheduler_bench(gpu.runner, run=gpu) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 2)
        slots = await bench.allocate(me, 1, ResourceKind.EMBEDDING)
        fill = a_pass([1, 2], pages[:1], 2, outputs=(), stored=((1, slots[0]),))
        bench.submit(me, fill, queue=0)
        take = bench.submit(me, a_pass([-1 - slots[0]], pages[1:], 1), queue=1)
        (embedded,) = await tokens_of(take)

    assert [step.passes for step in gpu.steps] == [1, 1]
    assert embedded != await alone([1])
