"""The scheduler: pages, order, barriers and failures, as its guests meet them."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pie.batch import Batch, BatchResult
from pie.errors import Closed, GuestError, OutOfResources, PassFailed
from pie.ids import InstanceId, Pointer, Priority, QueueId, ResourceKind
from pie.messages import (
    AllocatePointers,
    EndInstance,
    ExportPointers,
    FreePointers,
    ImportPointers,
    ListExports,
    ReleaseExport,
    Synchronize,
)
from pie.testing import HashModel, SimulatedModel

from .scheduling import PAGE, Bench, a_pass, scheduler_bench, tokens_of

SIZE = 16


async def _alone(tokens: list[int]) -> list[int]:
    """What a fresh context of these tokens continues with."""
    async with scheduler_bench() as bench:
        me = bench.open()
        count = -(-len(tokens) // SIZE)
        pages = await bench.allocate(me, count)
        return (await tokens_of(bench.submit(me, a_pass(tokens, pages, len(tokens)))))[0]


# ----------------------------------------------------------------------- pointers


async def test_pointers_are_smallest_free_first_and_private() -> None:
    """Contract R1."""
    async with scheduler_bench() as bench:
        first, second = bench.open(0), bench.open(1)
        assert await bench.allocate(first, 3) == (0, 1, 2)
        assert await bench.allocate(second, 2) == (0, 1)
        bench.service.tell(FreePointers(first, PAGE, (Pointer(1),)))
        assert await bench.allocate(first, 2) == (1, 3)


async def test_a_freed_page_is_not_reused_while_a_pass_uses_it() -> None:
    """Contract R2: the pass was submitted before the page was freed."""
    async with scheduler_bench(HashModel(pages=1)) as bench:
        first, second = bench.open(0), bench.open(1)
        pages = await bench.allocate(first, 1)
        work = bench.submit(first, a_pass([1, 2, 3], pages, 3))
        bench.service.tell(FreePointers(first, PAGE, pages))
        assert await bench.allocate(second, 1) == (0,)
        assert work.reply.ready()

    assert work.reply.take().tokens == await _alone([1, 2, 3])


async def test_a_page_reads_as_zeros_to_its_next_owner() -> None:
    """Contract R3: slots that were never written look the same whoever had the page before."""
    model = HashModel(pages=1)
    async with scheduler_bench(model) as bench:
        reader = bench.open(1)
        pages = await bench.allocate(reader, 1)
        untouched = await tokens_of(bench.submit(reader, a_pass([9], pages, 8)))
        bench.service.tell(FreePointers(reader, PAGE, pages))
        writer = bench.open(2)
        pages = await bench.allocate(writer, 1)
        await tokens_of(bench.submit(writer, a_pass([5] * 8, pages, 8)))
        bench.service.tell(FreePointers(writer, PAGE, pages))
        pages = await bench.allocate(reader, 1)
        again = await tokens_of(bench.submit(reader, a_pass([9], pages, 8)))

    assert untouched == again


async def test_allocation_waits_for_room_and_the_oldest_is_first() -> None:
    """Contract R4, R5: all or nothing, in one line by age; a small request does not overtake."""
    order: list[int] = []
    async with scheduler_bench(HashModel(pages=4)) as bench:
        holder = bench.open(0)
        pages = await bench.allocate(holder, 3)

        async def want(number: int, count: int) -> None:
            await bench.allocate(InstanceId(number), count)
            order.append(number)

        bench.movers[holder].start()
        async with trio.open_nursery() as nursery:
            for number, count in ((7, 1), (5, 2)):
                bench.open(number)
                nursery.start_soon(want, number, count)
                await wait_all_tasks_blocked()
            assert order == [7]
            bench.service.tell(FreePointers(holder, PAGE, pages[:1]))
            await wait_all_tasks_blocked()
            assert order == [7]
            bench.service.tell(FreePointers(holder, PAGE, pages[1:2]))
        bench.movers[holder].stop()

    assert order == [7, 5]


async def test_a_request_that_can_never_fit_is_told_both_numbers() -> None:
    """Contract R5."""
    async with scheduler_bench(HashModel(pages=4)) as bench:
        me = bench.open()
        await bench.allocate(me, 3)
        with pytest.raises(OutOfResources, match=r"holds 3 KV pages and asks for 2 more.*has 4"):
            await bench.allocate(me, 2)


# ---------------------------------------------------------------- sharing and copies


async def _export(bench: Bench, me: InstanceId, pages: tuple[Pointer, ...], name: str) -> None:
    await bench.service.ask(ExportPointers(me, PAGE, pages, name))


async def _import(bench: Bench, me: InstanceId, name: str) -> tuple[Pointer, ...]:
    found = await bench.service.ask(ImportPointers(me, PAGE, name))
    assert found is not None
    return found


async def test_importers_get_private_copies_when_they_write() -> None:
    """Contract R8: several go on from one partial page, none sees another."""
    prompt = [1, 2, 3, 4, 5]
    async with scheduler_bench() as bench:
        owner = bench.open(0)
        pages = await bench.allocate(owner, 1)
        bench.submit(owner, a_pass(prompt, pages, 5, outputs=()))
        await _export(bench, owner, pages, "prompt")
        answers = []
        for number in (1, 2, 3):
            me = bench.open(number)
            mine = await _import(bench, me, "prompt")
            answers.append(bench.submit(me, a_pass([50 + number], mine, 6)))
        answers.append(bench.submit(owner, a_pass([99], pages, 6)))
        got = await tokens_of(*answers)

    assert got == [await _alone([*prompt, last]) for last in (51, 52, 53, 99)]


async def test_a_copy_waits_for_the_pass_that_writes_its_source() -> None:
    """Contract R8: flush, export and write on, all without waiting."""
    async with scheduler_bench() as bench:
        owner = bench.open()
        pages = await bench.allocate(owner, 1)
        bench.submit(owner, a_pass([1, 2, 3], pages, 3, outputs=()), queue=0)
        await _export(bench, owner, pages, "prefix")
        grown = bench.submit(owner, a_pass([4], pages, 4), queue=1)
        rewound = bench.submit(owner, a_pass([7], pages, 3), queue=2)
        got = await tokens_of(grown, rewound)

    assert got == [await _alone([1, 2, 3, 4]), await _alone([1, 2, 7])]


async def test_the_last_holder_takes_the_page_instead_of_a_copy() -> None:
    """Contract R8: with all others gone, no free page is needed."""
    async with scheduler_bench(HashModel(pages=1)) as bench:
        owner, heir = bench.open(0), bench.open(1)
        pages = await bench.allocate(owner, 1)
        bench.submit(owner, a_pass([1, 2], pages, 2, outputs=()))
        await _export(bench, owner, pages, "x")
        mine = await _import(bench, heir, "x")
        bench.movers[owner].start()
        work = bench.submit(heir, a_pass([3], mine, 3))
        await wait_all_tasks_blocked()
        assert not work.reply.ready()
        bench.service.tell(FreePointers(owner, PAGE, pages))
        bench.service.tell(ReleaseExport(owner, PAGE, "x"))
        bench.movers[owner].stop()
        got = await tokens_of(work)

    assert got == [await _alone([1, 2, 3])]


async def test_a_pass_may_read_a_page_by_one_pointer_and_write_it_by_another() -> None:
    """The original is not taken for the copy, although only this pass still uses it."""
    async with scheduler_bench(HashModel(pages=3)) as bench:
        owner, me = bench.open(0), bench.open(1)
        pages = await bench.allocate(owner, 1)
        await bench.submit(owner, a_pass(list(range(16)), pages, 16)).reply.wait()
        await _export(bench, owner, pages, "x")
        others = await bench.allocate(owner, 2)
        (read,), (written,) = [await _import(bench, me, "x") for _ in range(2)]
        bench.movers[owner].start()
        both = bench.submit(me, a_pass([7], [read, written], 32))
        bench.service.tell(FreePointers(me, PAGE, (read, written)))
        bench.service.tell(ReleaseExport(me, PAGE, "x"))
        bench.service.tell(FreePointers(owner, PAGE, pages))
        await trio.sleep(1)
        assert not both.reply.ready(), "the copy has no room"
        bench.service.tell(FreePointers(owner, PAGE, others))
        bench.movers[owner].stop()
        await both.reply.wait()
        stats = await bench.stats()

    assert stats.pages_free == 3


async def test_a_page_listed_twice_is_kept_for_the_other_pass_that_uses_it() -> None:
    """Contract R2: the end of a pass ends its own uses of the page only."""
    model = SimulatedModel(HashModel(pages=3))
    async with scheduler_bench(model.model, step_tokens=1, run=model.run) as bench:
        me = bench.open()
        read, first, second = await bench.allocate(me, 3)
        await bench.submit(me, a_pass([1] * 16, [read], 16)).reply.wait()
        twice = bench.submit(me, a_pass([2], [read, read, first], 33))
        once = bench.submit(me, a_pass([2], [read, second], 17), queue=1)
        bench.service.tell(FreePointers(me, PAGE, (read,)))
        await twice.reply.wait()
        assert not once.reply.ready()
        assert (await bench.stats()).pages_free == 0
        await once.reply.wait()
        assert (await bench.stats()).pages_free == 1


async def test_an_export_becomes_visible_when_its_pages_are_written() -> None:
    """Contract R6."""
    async with scheduler_bench() as bench:
        me = bench.open()
        pages = await bench.allocate(me, 1)
        bench.submit(me, a_pass([1], pages, 1))
        await _export(bench, me, pages, "x")
        assert await bench.service.ask(ListExports(me, PAGE)) == []
        assert await _import(bench, me, "x") == (1,)
        assert await bench.service.ask(ListExports(me, PAGE)) == [("x", 1)]


async def test_an_export_whose_writer_fails_is_gone_and_its_importers_are_told() -> None:
    """Contract R6, F7."""

    async def lose(_: Batch) -> BatchResult:
        await trio.sleep(1)
        raise PassFailed("the device fell over")

    async with scheduler_bench(run=lose) as bench:
        owner, other = bench.open(0), bench.open(1)
        pages = await bench.allocate(owner, 1)
        bench.submit(owner, a_pass([1], pages, 1))
        await _export(bench, owner, pages, "x")
        with pytest.raises(GuestError, match=r"'x' is gone.*the device fell over"):
            await _import(bench, other, "x")
        with pytest.raises(GuestError, match="nothing is exported as 'x'"):
            await _import(bench, other, "x")


async def test_an_exporter_that_is_killed_first_takes_the_export_with_it() -> None:
    """Contract R6; the importer hears the reason."""
    async with scheduler_bench() as bench:
        owner, other = bench.open(0), bench.open(1)
        pages = await bench.allocate(owner, 1)
        bench.submit(owner, a_pass([1], pages, 1))
        await _export(bench, owner, pages, "x")
        question = ImportPointers(other, PAGE, "x")
        bench.service.tell(question)
        await bench.service.ask(EndInstance(owner, drain=False))
        with pytest.raises(GuestError, match=r"'x' is gone: .*ended"):
            await question.reply.wait()


async def test_users_never_meet_in_exports() -> None:
    """Contract R6, X3: names belong to a user."""
    async with scheduler_bench() as bench:
        alice, bob = bench.open(0, "alice"), bench.open(1, "bob")
        await _export(bench, alice, await bench.allocate(alice, 1), "x")
        await _export(bench, bob, await bench.allocate(bob, 2), "x")
        with pytest.raises(GuestError, match="exists already"):
            await _export(bench, bob, (), "x")

        assert await bench.service.ask(ListExports(alice, PAGE)) == [("x", 1)]
        assert await bench.service.ask(ListExports(bob, PAGE)) == [("x", 2)]


# ------------------------------------------------------------------ order and barriers


async def test_flush_then_fork_on_another_queue_sees_the_whole_prompt() -> None:
    """Contract Q1, with a prompt of three steps and the child more urgent than its parent."""
    prompt = [(i * 7) % 256 for i in range(48)]
    async with scheduler_bench(step_tokens=16) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 4)
        bench.submit(me, a_pass(prompt, pages[:3], 48, outputs=()), priority=Priority.LOW)
        child = bench.submit(me, a_pass([65], pages, 49), queue=1, priority=Priority.HIGH)
        got = await tokens_of(child)

    assert got == [await _alone([*prompt, 65])]


async def test_consecutive_passes_of_a_queue_share_a_step() -> None:
    """Contract K5: a later pass may read what an earlier one writes in the same step."""
    model = SimulatedModel()
    async with scheduler_bench(model.model, run=model) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 1)
        works = [bench.submit(me, a_pass([i], pages, i + 1)) for i in range(5)]
        got = await tokens_of(*works)

    assert [step.passes for step in model.steps] == [5]
    assert got == [await _alone(list(range(i + 1))) for i in range(5)]


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
        assert await tokens_of(bench.submit(me, a_pass([1, 2], pages, 2))) == [await _alone([1, 2])]
        again = bench.submit(me, a_pass([3, 4, 5], pages, 5))
        assert await tokens_of(again) == [await _alone([1, 2, 3, 4, 5])]


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
        await _export(bench, me, (shared,), "x")
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
        assert await tokens_of(anew) == [await _alone([7, 8])]


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
            bench.service.activity.start()
            nursery.start_soon(run, "low", 0, Priority.LOW)
            await wait_all_tasks_blocked()
            nursery.start_soon(run, "normal", 1, Priority.NORMAL)
            await wait_all_tasks_blocked()
            nursery.start_soon(run, "high", 2, Priority.HIGH)
            await wait_all_tasks_blocked()
            bench.service.activity.stop()

    assert done == ["high", "normal", "low"]


async def test_a_pass_that_a_more_urgent_one_waits_for_becomes_as_urgent() -> None:
    """Contract Q3: the urgent one overwrites what the low one reads, so it runs after it."""
    model = SimulatedModel()
    async with scheduler_bench(model.model, step_tokens=1, run=model) as bench:
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
    model = SimulatedModel(step_seconds=1.0)
    async with scheduler_bench(model.model, step_tokens=16, run=model) as bench:
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
    model = SimulatedModel()
    async with scheduler_bench(model.model, run=model) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 2)
        slots = await bench.allocate(me, 1, ResourceKind.EMBEDDING)
        fill = a_pass([1, 2], pages[:1], 2, outputs=(), stored=((1, slots[0]),))
        bench.submit(me, fill, queue=0)
        take = bench.submit(me, a_pass([-1 - slots[0]], pages[1:], 1), queue=1)
        (embedded,) = await tokens_of(take)

    assert [step.passes for step in model.steps] == [1, 1]
    assert embedded != await _alone([1])
