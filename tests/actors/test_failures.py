"""What is left of a pass that failed, and of an instance that has returned (contract F7, R10)."""

from __future__ import annotations

import pytest
import trio

from pie.batch import Batch, BatchResult
from pie.errors import PassFailed
from pie.ids import Priority, QueueId, ResourceKind
from pie.messages import EndInstance, ExportPointers, ReleaseExport, Synchronize
from pie.testing import HashModel, LostBatch, SimulatedGpu

from .scheduling import PAGE, a_pass, scheduler_bench, tokens_of


def _losing(model: HashModel, *lost: int) -> SimulatedGpu:
    """A model that loses the batches with these numbers."""

    class Losing(SimulatedGpu):
        async def run(self, batch: Batch) -> BatchResult:
            number = len(self.steps)
            result = await super().run(batch)
            if number in lost:
                raise PassFailed("lost")
            return result

    return Losing(model)


async def test_a_second_failure_does_not_hide_what_the_first_left_unwritten() -> None:
    """The reader rewinds to slots that only the first of two failed passes should have written."""
    gpu = _losing(HashModel(), 0)
    async with scheduler_bench(gpu.runner, run=gpu) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 1)
        with pytest.raises(PassFailed, match="lost"):
            await bench.submit(me, a_pass([1, 2, 3, 4], pages, 4)).reply.wait()
        with pytest.raises(PassFailed, match="reads failed: lost"):
            await bench.submit(me, a_pass([5], pages, 5)).reply.wait()
        with pytest.raises(PassFailed, match="reads failed: lost"):
            await bench.submit(me, a_pass([6], pages, 4)).reply.wait()


async def test_a_barrier_tells_of_the_failures_of_its_own_queue_only() -> None:
    """The guest returns without having met the failure on the other queue."""
    gpu = _losing(HashModel(), 0)
    async with scheduler_bench(gpu.runner, run=gpu) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 2)
        bench.submit(me, a_pass([1], pages[:1], 1, outputs=()), queue=0)
        bench.submit(me, a_pass([1], pages[1:], 1, outputs=()), queue=1)
        assert await bench.service.ask(Synchronize(me, QueueId(1))) is False
        with pytest.raises(PassFailed, match="lost"):
            await bench.service.ask(EndInstance(me, drain=True))


async def test_a_returned_instance_does_not_wait_for_a_page_that_it_holds_itself() -> None:
    """Contract R10: handles are gone at once, so there is room for the copy of its last pass."""
    async with scheduler_bench(HashModel(pages=2)) as bench:
        me = bench.open()
        shared, _ = await bench.allocate(me, 2)
        await bench.service.ask(ExportPointers(me, PAGE, (shared,), "kept"))
        last = bench.submit(me, a_pass([1], [shared], 1))
        with trio.fail_after(10):
            await bench.service.ask(EndInstance(me, drain=True))
        assert last.reply.take().tokens
        other = bench.open(1)
        bench.service.tell(ReleaseExport(other, PAGE, "kept"))
        stats = await bench.stats()

    assert stats.pages_free == 2


async def test_a_vector_that_was_never_stored_is_not_taken() -> None:
    """Contract F7: also by a pass that is submitted after the failure; a new vector is good."""
    gpu = SimulatedGpu(HashModel(), faults={0: LostBatch()})
    async with scheduler_bench(gpu.runner, run=gpu) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 1)
        (slot,) = await bench.allocate(me, 1, ResourceKind.EMBEDDING)
        with pytest.raises(PassFailed, match="lost"):
            await bench.submit(me, a_pass([1], pages, 1, stored=((0, slot),))).reply.wait()
        with pytest.raises(PassFailed, match=r"reads failed: .*lost"):
            await bench.submit(me, a_pass([-1 - slot], pages, 1)).reply.wait()
        stores = bench.submit(me, a_pass([2], pages, 1, stored=((0, slot),)))
        takes = bench.submit(me, a_pass([-1 - slot], pages, 2))
        assert len(await tokens_of(stores, takes)) == 2


async def test_what_a_lost_step_may_have_changed_is_not_computed_from_again() -> None:
    """A pass that takes a slot and stores to it gives something else the second time (F7)."""
    gpu = SimulatedGpu(HashModel(), faults={1: LostBatch(written=True)})
    async with scheduler_bench(gpu.runner, run=gpu) as bench:
        me, other = bench.open(0), bench.open(1)
        pages, others = await bench.allocate(me, 1), await bench.allocate(other, 1)
        (slot,) = await bench.allocate(me, 1, ResourceKind.EMBEDDING)
        await bench.submit(me, a_pass([1], pages, 1, stored=((0, slot),))).reply.wait()
        update = bench.submit(me, a_pass([-1 - slot], pages, 2, stored=((0, slot),)))
        beside = bench.submit(other, a_pass([1], others, 1))
        with pytest.raises(PassFailed, match="cannot be repeated"):
            await update.reply.wait()
        assert await tokens_of(beside)
        assert len(gpu.steps) == 3


async def test_a_lost_batch_is_repeated_without_the_pass_that_loses_it() -> None:
    """Contract F7: passes of other instances in that batch are repeated once without it."""
    model = HashModel(page_size=4, pages=8)
    poison = 250

    async def lose_poison(batch: Batch) -> BatchResult:
        await trio.sleep(1)
        if poison in batch.tokens:
            raise PassFailed("it chokes on 250")
        return model.run(batch)

    async with scheduler_bench(model, run=lose_poison) as bench:
        users = [bench.open(number) for number in range(3)]
        pages = [await bench.allocate(user, 2) for user in users]
        inputs = [[1, 2, 3, 4, 5], [6, poison, 8], [9, 10, 11, 12, 13, 14]]
        works = [
            bench.submit(user, a_pass(tokens, own, len(tokens)))
            for user, own, tokens in zip(users, pages, inputs, strict=True)
        ]
        with pytest.raises(PassFailed, match="chokes on 250"):
            await works[1].reply.wait()
        got = await tokens_of(works[0], works[2])
        batches = (await bench.stats()).batches

    alone = HashModel(page_size=4, pages=8)
    async with scheduler_bench(alone) as bench:
        me = bench.open()
        own = await bench.allocate(me, 4)
        wanted = await tokens_of(
            bench.submit(me, a_pass(inputs[0], own[:2], 5)),
            bench.submit(me, a_pass(inputs[2], own[2:], 6)),
        )
    assert got == wanted
    assert batches == 4


async def test_a_long_chain_of_passes_may_fail_at_once() -> None:
    """Longer than Python's stack is deep."""

    async def lose(_: Batch) -> BatchResult:
        await trio.sleep(1)
        raise PassFailed("lost")

    async with scheduler_bench(HashModel(pages=1), step_tokens=1, run=lose) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 1)
        works = [
            bench.submit(me, a_pass([7], pages, 1 + i % 16), priority=Priority(i // 500))
            for i in range(1200)
        ]
        for work in works:
            with pytest.raises(PassFailed):
                await work.reply.wait()
