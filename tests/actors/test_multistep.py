"""A device that goes on by itself is told to, and is stopped for whoever else comes."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pytest
import trio

from pie.batch import Batch, BatchResult
from pie.errors import PassFailed
from pie.ids import InstanceId, Pointer
from pie.messages import CancelDecoding, ForwardPass, FreePointers, Sample, SubmitDecoding
from pie.multistep import MultiStep
from pie.signals import wait_any
from pie.testing import Fault, HashModel, LinearTiming, LostBatch, SimulatedGpu

from .scheduling import PAGE, Bench, a_pass, scheduler_bench, tokens_of

STEP = 1 / 128
"""Seconds."""
HOT = 1.3


@attrs.define(eq=False)
class Counting(SimulatedGpu):
    """Notes how many steps each call made: 1 for those of a single step."""

    calls: list[int] = attrs.field(factory=list)

    async def run_steps(self, steps: MultiStep) -> None:
        before = len(self.steps)
        try:
            await super().run_steps(steps)
        finally:
            self.calls.append(len(self.steps) - before)


def _gpu(faults: dict[int, Fault] | None = None) -> Counting:
    return Counting(HashModel(multi_steps=64), LinearTiming(STEP, 0.0), faults=faults or {})


def _first(tokens: Sequence[int], pages: Sequence[Pointer]) -> ForwardPass:
    return a_pass(tokens, pages, len(tokens), outputs=[Sample(len(tokens) - 1, HOT)])


async def _begun(
    bench: Bench, me: InstanceId, steps: int, *, stops: Sequence[int] = ()
) -> SubmitDecoding:
    """A decoding after one input, with pages for all of it."""
    pages = await bench.allocate(me, -(-steps // 16))
    return bench.decode(me, _first([7], pages), steps, stops=stops)


async def _alone(steps: int, seed: int = 0) -> list[int]:
    """What it draws on a device that makes single steps."""
    async with scheduler_bench(HashModel()) as bench:
        decoding = await _begun(bench, bench.open(0, seed=seed), steps)
        await decoding.reply.wait()
        return decoding.feed.tokens


async def test_all_steps_of_a_decoding_are_one_call() -> None:
    gpu = _gpu()
    async with scheduler_bench(gpu.runner, run=gpu) as bench:
        decoding = await _begun(bench, bench.open(), 100)
        await decoding.reply.wait()
        stats = await bench.stats()

    assert gpu.calls == [64, 36]
    assert (stats.passes, stats.decode_batches, stats.sampled) == (100, 100, 100)
    assert stats.busy_seconds == pytest.approx(100 * STEP)
    assert decoding.feed.tokens == await _alone(100)


async def test_several_go_on_together_until_one_of_them_is_over() -> None:
    wanted = [await _alone(40, seed) for seed in range(3)]
    stop = wanted[1][9]
    ends = [40, wanted[1].index(stop) + 1, 25]
    gpu = _gpu()
    async with scheduler_bench(gpu.runner, run=gpu) as bench:
        instances = [bench.open(number, seed=number) for number in range(3)]
        for me in instances:
            bench.movers[me].start()
        decodings = [
            await _begun(bench, instances[0], 40),
            await _begun(bench, instances[1], 40, stops=[stop]),
            await _begun(bench, instances[2], 25),
        ]
        for me in instances:
            bench.movers[me].stop()
        for decoding in decodings:
            await decoding.reply.wait()

    found = [decoding.feed.tokens for decoding in decodings]
    assert found == [tokens[:end] for tokens, end in zip(wanted, ends, strict=True)]
    assert gpu.calls == [ends[1], 25 - ends[1], 15]


async def test_tokens_are_told_as_they_come_to_whoever_looks_for_them() -> None:
    gpu = _gpu()
    async with scheduler_bench(gpu.runner, run=gpu) as bench:
        decoding = await _begun(bench, bench.open(), 30)
        began = trio.current_time()
        await trio.sleep(4.5 * STEP)
        assert decoding.feed.tokens == []
        seen = []
        while not decoding.reply.ready():
            await wait_any((decoding.feed,))
            seen.append(((trio.current_time() - began) / STEP, len(decoding.feed.tokens)))
            if not decoding.reply.ready():
                decoding.feed.clear()

    assert seen == [(step, step) for step in range(5, 31)]
    assert gpu.calls == [30]


async def test_whoever_comes_waits_for_the_step_that_runs_and_no_longer() -> None:
    gpu = _gpu()
    async with scheduler_bench(gpu.runner, run=gpu) as bench:
        decoding = await _begun(bench, bench.open(0), 30)
        other = bench.open(1)
        pages = await bench.allocate(other, 1)
        began = trio.current_time()
        await trio.sleep(4.5 * STEP)
        await tokens_of(bench.submit(other, _first([1], pages)))
        assert (trio.current_time() - began) / STEP == 6
        await decoding.reply.wait()

    assert [step.passes for step in gpu.steps] == [1] * 5 + [2] + [1] * 24
    assert gpu.calls == [5, 24]
    assert decoding.feed.tokens == await _alone(30)


async def test_whoever_waits_for_pages_is_not_kept_waiting() -> None:
    gpu = Counting(HashModel(pages=4, multi_steps=64), LinearTiming(STEP, 0.0))
    async with scheduler_bench(gpu.runner, run=gpu, host_pages=16) as bench:
        old, young = bench.open(0), bench.open(1)
        decoding = await _begun(bench, young, 48)
        began = trio.current_time()
        await trio.sleep(4.5 * STEP)
        pages = await bench.allocate(old, 4)
        assert (trio.current_time() - began) / STEP == pytest.approx(5, abs=0.1)
        bench.service.tell(FreePointers(old, PAGE, tuple(pages)))
        await decoding.reply.wait()

    assert gpu.calls == [5, 43]
    assert decoding.feed.tokens == await _alone(48)


@pytest.mark.parametrize("watched", [False, True])
async def test_a_cancelled_one_ends_with_the_step_that_runs(watched: bool) -> None:
    gpu = _gpu()
    async with scheduler_bench(gpu.runner, run=gpu) as bench:
        decoding = await _begun(bench, bench.open(), 30)
        if watched:
            decoding.feed.watch()
        await trio.sleep(4.5 * STEP)
        bench.service.tell(CancelDecoding(decoding, 0))
        await decoding.reply.wait()

    assert gpu.calls == [5]
    assert decoding.feed.tokens == ((await _alone(4)) if watched else [])


async def test_what_was_drawn_before_a_lost_step_is_kept() -> None:
    """Contract F7: it was of one instance, so its passes fail from there on."""
    gpu = _gpu(faults={7: LostBatch("the device lost it")})
    async with scheduler_bench(gpu.runner, run=gpu) as bench:
        decoding = await _begun(bench, bench.open(), 30)
        with pytest.raises(PassFailed, match="the device lost it"):
            await decoding.reply.wait()

    assert decoding.feed.tokens == await _alone(7)


@pytest.mark.parametrize("written", [False, True])
async def test_a_lost_step_of_several_is_repeated_apart_and_nothing_is_missing(
    written: bool,
) -> None:
    """Contract F7."""
    gpu = _gpu(faults={7: LostBatch("the device lost it", written=written)})
    async with scheduler_bench(gpu.runner, run=gpu) as bench:
        instances = [bench.open(number, seed=number) for number in range(2)]
        for me in instances:
            bench.movers[me].start()
        decodings = [await _begun(bench, me, 30) for me in instances]
        for me in instances:
            bench.movers[me].stop()
        for decoding in decodings:
            await decoding.reply.wait()

    assert [step.passes for step in gpu.steps[:11]] == [2] * 8 + [1, 1, 2]
    assert [d.feed.tokens for d in decodings] == [await _alone(30, seed) for seed in range(2)]


async def test_logits_that_are_not_finite_end_it_with_their_step() -> None:
    @attrs.define(eq=False)
    class Broken(Counting):
        async def run(self, batch: Batch) -> BatchResult:
            result = await super().run(batch)
            finite = result.sampled_finite & (len(self.steps) != 6)
            return attrs.evolve(result, sampled_finite=finite)

    gpu = Broken(HashModel(multi_steps=64), LinearTiming(STEP, 0.0))
    async with scheduler_bench(gpu.runner, run=gpu) as bench:
        decoding = await _begun(bench, bench.open(), 30)
        with pytest.raises(PassFailed, match="not finite"):
            await decoding.reply.wait()

    assert gpu.calls == [6]
    assert decoding.feed.tokens == await _alone(5)


async def test_a_row_that_hides_something_goes_step_by_step() -> None:
    gpu = _gpu()
    async with scheduler_bench(gpu.runner, run=gpu) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 1)
        work = a_pass([7, 8], pages, 2, outputs=[Sample(1, HOT)], masks=((1,), (0, 1, 1)))
        decoding = bench.decode(me, work, 9)
        await decoding.reply.wait()

    assert gpu.calls == []
    assert len(gpu.steps) == 9


async def test_long_steps_are_few_in_one_call() -> None:
    """What a call takes is what a guarded device is given up for."""
    gpu = Counting(HashModel(multi_steps=64), LinearTiming(0.1, 0.0))
    async with scheduler_bench(gpu.runner, run=gpu) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 3)
        await bench.submit(me, _first([1, 2, 3], pages)).reply.wait()
        await (await _begun(bench, me, 30)).reply.wait()

    assert len(gpu.steps) == 31
    assert 1 < max(gpu.calls) <= 10
