"""The scheduler: pages, sharing and copies, as its guests meet them."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pie.batch import Batch, BatchResult
from pie.errors import GuestError, OutOfResources, PassFailed
from pie.ids import InstanceId, Pointer
from pie.messages import (
    EndInstance,
    FreePointers,
    ImportPointers,
    ListExports,
    ReleaseExport,
    SharePages,
)
from pie.testing import HashModel, SimulatedGpu

from .scheduling import PAGE, a_pass, alone, scheduler_bench, tokens_of

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

    assert work.reply.take().tokens == await alone([1, 2, 3])


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


async def test_importers_get_private_copies_when_they_write() -> None:
    """Contract R8: several go on from one partial page, none sees another."""
    prompt = [1, 2, 3, 4, 5]
    async with scheduler_bench() as bench:
        owner = bench.open(0)
        pages = await bench.allocate(owner, 1)
        bench.submit(owner, a_pass(prompt, pages, 5, outputs=()))
        await bench.export(owner, pages, "prompt")
        answers = []
        for number in (1, 2, 3):
            me = bench.open(number)
            mine = await bench.import_(me, "prompt")
            answers.append(bench.submit(me, a_pass([50 + number], mine, 6)))
        answers.append(bench.submit(owner, a_pass([99], pages, 6)))
        got = await tokens_of(*answers)

    assert got == [await alone([*prompt, last]) for last in (51, 52, 53, 99)]


async def test_a_copy_waits_for_the_pass_that_writes_its_source() -> None:
    """Contract R8: flush, export and write on, all without waiting."""
    async with scheduler_bench() as bench:
        owner = bench.open()
        pages = await bench.allocate(owner, 1)
        bench.submit(owner, a_pass([1, 2, 3], pages, 3, outputs=()), queue=0)
        await bench.export(owner, pages, "prefix")
        grown = bench.submit(owner, a_pass([4], pages, 4), queue=1)
        rewound = bench.submit(owner, a_pass([7], pages, 3), queue=2)
        got = await tokens_of(grown, rewound)

    assert got == [await alone([1, 2, 3, 4]), await alone([1, 2, 7])]


async def test_pointers_of_one_instance_part_at_the_first_write() -> None:
    """Contract R8, X10: shared while the pass that fills the page has not run."""
    prompt = [1, 2, 3]
    async with scheduler_bench() as bench:
        me = bench.open()
        (mine,) = await bench.allocate(me, 1)
        bench.submit(me, a_pass(prompt, (mine,), 3, outputs=()), queue=0)
        (other,) = await bench.service.ask(SharePages(me, (mine,)))
        answers = [
            bench.submit(me, a_pass([4], (other,), 4), queue=1),
            bench.submit(me, a_pass([5], (mine,), 4), queue=0),
            bench.submit(me, a_pass([6], (other,), 5), queue=1),
        ]
        got = await tokens_of(*answers)
        assert (await bench.stats()).pages_peak == 2

    assert got == [await alone([*prompt, *more]) for more in ([4], [5], [4, 6])]


async def test_the_last_holder_takes_the_page_instead_of_a_copy() -> None:
    """Contract R8: with all others gone, no free page is needed."""
    async with scheduler_bench(HashModel(pages=1)) as bench:
        owner, heir = bench.open(0), bench.open(1)
        pages = await bench.allocate(owner, 1)
        bench.submit(owner, a_pass([1, 2], pages, 2, outputs=()))
        await bench.export(owner, pages, "x")
        mine = await bench.import_(heir, "x")
        bench.movers[owner].start()
        work = bench.submit(heir, a_pass([3], mine, 3))
        await wait_all_tasks_blocked()
        assert not work.reply.ready()
        bench.service.tell(FreePointers(owner, PAGE, pages))
        bench.service.tell(ReleaseExport(owner, PAGE, "x"))
        bench.movers[owner].stop()
        got = await tokens_of(work)

    assert got == [await alone([1, 2, 3])]


async def test_a_pass_may_read_a_page_by_one_pointer_and_write_it_by_another() -> None:
    """The original is not taken for the copy, although only this pass still uses it."""
    async with scheduler_bench(HashModel(pages=3)) as bench:
        owner, me = bench.open(0), bench.open(1)
        pages = await bench.allocate(owner, 1)
        await bench.submit(owner, a_pass(list(range(16)), pages, 16)).reply.wait()
        await bench.export(owner, pages, "x")
        others = await bench.allocate(owner, 2)
        (read,), (written,) = [await bench.import_(me, "x") for _ in range(2)]
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
    gpu = SimulatedGpu(HashModel(pages=3))
    async with scheduler_bench(gpu.runner, step_tokens=1, run=gpu.run) as bench:
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
        await bench.export(me, pages, "x")
        assert await bench.service.ask(ListExports(me, PAGE)) == []
        assert await bench.import_(me, "x") == (1,)
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
        await bench.export(owner, pages, "x")
        with pytest.raises(GuestError, match=r"'x' is gone.*the device fell over"):
            await bench.import_(other, "x")
        with pytest.raises(GuestError, match="nothing is exported as 'x'"):
            await bench.import_(other, "x")


async def test_an_exporter_that_is_killed_first_takes_the_export_with_it() -> None:
    """Contract R6; the importer hears the reason."""
    async with scheduler_bench() as bench:
        owner, other = bench.open(0), bench.open(1)
        pages = await bench.allocate(owner, 1)
        bench.submit(owner, a_pass([1], pages, 1))
        await bench.export(owner, pages, "x")
        question = ImportPointers(other, PAGE, "x")
        bench.service.tell(question)
        await bench.service.ask(EndInstance(owner, drain=False))
        with pytest.raises(GuestError, match=r"'x' is gone: .*ended"):
            await question.reply.wait()


async def test_users_never_meet_in_exports() -> None:
    """Contract R6, X3: names belong to a user."""
    async with scheduler_bench() as bench:
        alice, bob = bench.open(0, "alice"), bench.open(1, "bob")
        await bench.export(alice, await bench.allocate(alice, 1), "x")
        await bench.export(bob, await bench.allocate(bob, 2), "x")
        with pytest.raises(GuestError, match="exists already"):
            await bench.export(bob, (), "x")

        assert await bench.service.ask(ListExports(alice, PAGE)) == [("x", 1)]
        assert await bench.service.ask(ListExports(bob, PAGE)) == [("x", 2)]
