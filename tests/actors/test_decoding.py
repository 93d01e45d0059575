"""Decoding that the scheduler chains by itself is as many single passes (contract X10)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import pairwise

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from pie.batch import Batch, BatchResult
from pie.errors import Closed, PassFailed
from pie.ids import InstanceId, Pointer, Priority, QueueId
from pie.messages import (
    CancelDecoding,
    EndInstance,
    ExportPointers,
    ForwardPass,
    Sample,
    SubmitDecoding,
    Synchronize,
)
from pie.signals import wait_any
from pie.testing import HashModel, LinearTiming, SimulatedGpu

from .scheduling import PAGE, Bench, a_pass, scheduler_bench, tokens_of

SIZE = 4
STEP = 1 / 128
"""Seconds."""
HOT = 1.3
"""A temperature at which the hash model's tokens depend on their random numbers."""


_multi_steps = 1


@pytest.fixture(scope="module", autouse=True, params=[1, 64])
def _device_makes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test with a device that makes single steps, and with one that goes on by itself."""
    global _multi_steps
    _multi_steps = request.param
    yield
    _multi_steps = 1


def _model(*, page_size: int = 16, pages: int = 4096) -> HashModel:
    return HashModel(page_size=page_size, pages=pages, multi_steps=_multi_steps)


def _first(tokens: Sequence[int], pages: Sequence[Pointer], length: int) -> ForwardPass:
    return a_pass(tokens, pages, length, outputs=[Sample(len(tokens) - 1, HOT)])


async def _alone(count: int, *, after: Sequence[int] = (7, 8, 9)) -> list[int]:
    """The tokens of `count` single passes of a fresh instance, after some inputs."""
    async with scheduler_bench() as bench:
        me = bench.open()
        pages = await bench.allocate(me, 4)
        return await _one_by_one(bench, me, pages, after, count)


async def _one_by_one(
    bench: Bench, me: InstanceId, pages: Sequence[Pointer], inputs: Sequence[int], count: int
) -> list[int]:
    found: list[int] = []
    length = 0
    for _ in range(count):
        length += len(inputs)
        used = pages[: -(-length // 16)]
        ((token,),) = await tokens_of(bench.submit(me, _first(inputs, used, length)))
        found.append(token)
        inputs = [token]
    return found


async def _drawn(decoding: SubmitDecoding, count: int) -> None:
    """Wait until so many tokens have been drawn."""
    while len(decoding.feed.tokens) < count:
        decoding.feed.clear()
        await wait_any((decoding.feed,))


async def test_tokens_are_those_of_single_passes_and_come_as_they_are_drawn() -> None:
    gpu = SimulatedGpu(_model(), LinearTiming(STEP, 0.0))
    async with scheduler_bench(gpu.runner, run=gpu) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 2)
        began = trio.current_time()
        decoding = bench.decode(me, _first([7, 8, 9], pages, 3), 20)
        seen = []
        while not decoding.reply.ready():
            await wait_any((decoding.feed,))
            seen.append(((trio.current_time() - began) / STEP, len(decoding.feed.tokens)))
            if not decoding.reply.ready():
                decoding.feed.clear()
        assert (await bench.stats()).passes == 20

    assert seen == [(n, n) for n in range(1, 21)]
    assert decoding.feed.tokens == await _alone(20)
    assert [step.rows for step in gpu.steps] == [3] + [1] * 19


async def test_it_ends_after_a_stop_token() -> None:
    wanted = await _alone(20)
    stop = wanted[9]
    async with scheduler_bench() as bench:
        me = bench.open()
        pages = await bench.allocate(me, 2)
        decoding = bench.decode(me, _first([7, 8, 9], pages, 3), 20, stops=[stop])
        await decoding.reply.wait()
        after = bench.submit(me, _first([wanted[9]], pages, 13))
        assert decoding.feed.tokens == wanted[: wanted.index(stop) + 1] == wanted[:10]
        assert await tokens_of(after) == [[wanted[10]]]


async def test_what_is_behind_it_in_its_queue_runs_after_its_end_with_the_next_number() -> None:
    """Contract Q1, Q2, S3."""
    wanted = await _alone(12)
    async with scheduler_bench() as bench:
        me = bench.open()
        pages = await bench.allocate(me, 1)
        decoding = bench.decode(me, _first([7, 8, 9], pages, 3), 20, stops=[wanted[9]])
        behind = bench.decode(me, _first([wanted[9]], pages, 13), 1)
        last = bench.submit(me, _first([wanted[10]], pages, 14))
        done = await bench.service.ask(Synchronize(me, QueueId(0)))
        assert done is True
        assert decoding.reply.ready()
        assert last.reply.ready()

    assert decoding.feed.tokens + behind.feed.tokens == wanted[:11]
    assert last.reply.take().tokens == wanted[11:]


async def test_a_pass_of_another_queue_waits_only_if_it_meets_what_is_yet_to_be_written() -> None:
    """Contract Q1: slots that are written are read at once, others when they are."""
    gpu = SimulatedGpu(_model(), LinearTiming(STEP, 0.0))
    async with scheduler_bench(gpu.runner, run=gpu) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 2)
        prompt = list(range(16))
        decoding = bench.decode(me, _first(prompt, pages, 16), 10)
        one, two = await bench.allocate(me, 2)
        await _drawn(decoding, 3)
        behind = bench.submit(me, a_pass([1], [pages[0], pages[1], one], 33), queue=1)
        aside = bench.submit(me, a_pass([1], [pages[0], two], 17), queue=2)
        await aside.reply.wait()
        assert not decoding.reply.ready()
        await behind.reply.wait()
        assert decoding.reply.ready()


@pytest.mark.parametrize("taken", range(9))
@pytest.mark.parametrize("late", [0, 1, 30], ids=["at_once", "a_step_later", "after_its_end"])
async def test_a_cancelled_one_counts_as_what_was_taken(taken: int, late: int) -> None:
    """Whatever ran ahead: the next pass draws what it would have drawn after so many passes."""
    wanted = await _alone(10)
    gpu = SimulatedGpu(_model(), LinearTiming(STEP, 0.0))
    async with scheduler_bench(gpu.runner, run=gpu) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 1)
        decoding = bench.decode(me, _first([7, 8, 9], pages, 3), 9)
        await _drawn(decoding, taken)
        await trio.sleep(late * STEP)
        bench.service.tell(CancelDecoding(decoding, taken))
        inputs = [wanted[taken - 1]] if taken else [7, 8, 9]
        after = bench.submit(me, _first(inputs, pages, 3 + taken))
        assert await tokens_of(after) == [[wanted[taken]]]
        await decoding.reply.wait()


async def test_cancelled_behind_something_it_lets_nobody_overtake() -> None:
    gpu = SimulatedGpu(_model(), LinearTiming(STEP, 0.0))
    async with scheduler_bench(gpu.runner, run=gpu) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 2)
        first = bench.submit(me, a_pass([1], pages[:1], 1))
        decoding = bench.decode(me, _first([2], pages[:1], 2), 9)
        after = bench.submit(me, a_pass([3], pages[1:], 1))
        await wait_all_tasks_blocked()
        bench.service.tell(CancelDecoding(decoding, 0))
        await after.reply.wait()
        assert first.reply.ready()
        assert decoding.reply.ready()
        assert decoding.feed.tokens == []


async def test_a_lost_step_ends_it_with_the_reason_after_the_tokens_before() -> None:
    """Contract F7: what was to be written is read by nobody; a barrier says so."""
    model, steps = _model(), 0

    async def run(batch: Batch) -> BatchResult:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise PassFailed("the device lost the batch")
        return model.run(batch)

    async with scheduler_bench(model, run=run) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 1)
        decoding = bench.decode(me, _first([7, 8, 9], pages, 3), 9)
        with pytest.raises(PassFailed, match="lost the batch"):
            await decoding.reply.wait()
        reading = bench.submit(me, a_pass([1], pages, 12))
        with pytest.raises(PassFailed, match="whose results it reads"):
            await reading.reply.wait()
        assert await bench.service.ask(Synchronize(me, QueueId(0))) is False
        good = bench.submit(me, _first([decoding.feed.tokens[-1]], pages, 6))
        await good.reply.wait()

    assert decoding.feed.tokens == (await _alone(3))


async def test_a_step_lost_with_others_is_repeated_and_nothing_is_missing() -> None:
    """Contract F7."""
    model, lost = _model(), 0

    async def run(batch: Batch) -> BatchResult:
        nonlocal lost
        if batch.passes == 2:
            lost += 1
            raise PassFailed("the device lost the batch")
        return model.run(batch)

    async with scheduler_bench(model, run=run) as bench:
        decodings = []
        for number in range(2):
            me = bench.open(number)
            pages = await bench.allocate(me, 1)
            bench.movers[me].start()
            decodings.append(bench.decode(me, _first([7, 8, 9], pages, 3), 9))
        for mover in bench.movers.values():
            mover.stop()
        for decoding in decodings:
            await decoding.reply.wait()

    assert lost == 9
    assert [d.feed.tokens for d in decodings] == [await _alone(9)] * 2


async def test_the_end_of_its_instance_is_its_end() -> None:
    """Contract R10."""
    gpu = SimulatedGpu(_model(), LinearTiming(STEP, 0.0))
    async with scheduler_bench(gpu.runner, run=gpu) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 1)
        decoding = bench.decode(me, _first([7], pages, 1), 9)
        behind = bench.decode(me, _first([7], pages, 10), 2)
        await trio.sleep(2.5 * STEP)
        await bench.service.ask(EndInstance(me, drain=False))
        for each in (decoding, behind):
            with pytest.raises(Closed):
                await each.reply.wait()
        bench.service.tell(CancelDecoding(decoding, 0))
        await trio.sleep(5 * STEP)
        assert len(gpu.steps) == 3
        assert (await bench.stats()).pages_free == gpu.runner.info.pages


async def test_an_export_of_its_pages_is_seen_after_its_end() -> None:
    """Contract R6, R8: it writes on into what is being exported, as submitted before."""
    gpu = SimulatedGpu(_model(), LinearTiming(STEP, 0.0))
    async with scheduler_bench(gpu.runner, run=gpu) as bench:
        me, other = bench.open(0), bench.open(1)
        pages = await bench.allocate(me, 1)
        decoding = bench.decode(me, _first([7], pages, 1), 9)
        await trio.sleep(1.5 * STEP)
        await bench.service.ask(ExportPointers(me, PAGE, tuple(pages), "mine"))
        found = await bench.import_(other, "mine")
        assert decoding.reply.ready()
        work = a_pass([1], found, 10)
        (copied,) = await tokens_of(bench.submit(other, work))
        (own,) = await tokens_of(bench.submit(me, a_pass([1], pages, 10)))
        assert copied == own


async def test_a_shared_page_is_copied_once_and_written_on() -> None:
    """Contract R8."""
    gpu = SimulatedGpu(_model())
    copied: list[int] = []

    async def run(batch: Batch) -> BatchResult:
        copied.append(len(batch.copy_targets))
        return gpu.runner.run(batch)

    async with scheduler_bench(gpu.runner, run=run) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 1)
        await bench.submit(me, a_pass([7, 8], pages, 2)).reply.wait()
        await bench.export(me, pages, "mine")
        decoding = bench.decode(me, _first([9], pages, 3), 5)
        await decoding.reply.wait()
        (found,) = decoding.feed.tokens[-1:]

    assert copied == [0, 1, 0, 0, 0, 0]
    assert found == (await _numbered_from(1))[-1]


async def _numbered_from(number: int) -> list[int]:
    """Five tokens after 7, 8, 9, the first of them drawn by pass `number` of its queue."""
    async with scheduler_bench() as bench:
        me = bench.open()
        pages = await bench.allocate(me, 2)
        for _ in range(number):
            bench.submit(me, a_pass([1], pages[1:], 1))
        return await _one_by_one(bench, me, pages[:1], [7, 8, 9], 5)


# ------------------------------------------------------------------------ any program


@attrs.frozen
class Decode:
    """So many steps in the instance's pages; one step is a pass like any other."""

    instance: int
    queue: int
    priority: Priority
    pages: tuple[int, ...]
    length: int
    count: int
    steps: int
    token: int
    stops: frozenset[int]
    masks: tuple[tuple[int, ...], ...] | None


HELD = 5


@st.composite
def decodes(draw: st.DrawFn) -> Decode:
    pages = draw(st.lists(st.integers(0, HELD - 1), min_size=1, max_size=4, unique=True))
    room = len(pages) * SIZE
    length = draw(st.integers(1, room))
    count = draw(st.integers(1, length))
    masks: list[tuple[int, ...]] = []
    for visible in range(length - count + 1, length + 1):
        ends = sorted(draw(st.sets(st.integers(0, visible - 1), max_size=3)))
        edges = [0, *ends, visible]
        masks.append(tuple(b - a for a, b in pairwise(edges)))
    return Decode(
        instance=draw(st.integers(0, 1)),
        queue=draw(st.integers(0, 1)),
        priority=draw(st.sampled_from(Priority)),
        pages=tuple(pages),
        length=length,
        count=count,
        steps=draw(st.integers(1, room - length + 1)),
        token=draw(st.integers(0, 255)),
        stops=frozenset(draw(st.sets(st.integers(0, 255), max_size=40))),
        masks=tuple(masks) if draw(st.booleans()) else None,
    )


def _work(decode: Decode) -> ForwardPass:
    inputs = [(decode.token + i) % 256 for i in range(decode.count)]
    pages = [Pointer(page) for page in decode.pages]
    outputs = [Sample(decode.count - 1, HOT)]
    return a_pass(inputs, pages, decode.length, outputs=outputs, masks=decode.masks)


async def _singles(bench: Bench, me: InstanceId, decode: Decode) -> list[int]:
    """The law, with a mask of its own for each pass."""
    found: list[int] = []
    work = _work(decode)
    size = bench.service.info.page_size
    every = work.pages
    while True:
        work = attrs.evolve(work, pages=every[: -(-work.length // size)])
        ((token,),) = await tokens_of(
            bench.submit(me, work, queue=decode.queue, priority=decode.priority)
        )
        found.append(token)
        if len(found) == decode.steps or token in decode.stops:
            return found
        masks = None
        if work.masks is not None:
            row = list(work.masks[-1])
            masks = ((*row, 0, 1) if len(row) % 2 else (*row, 1),)
        work = attrs.evolve(
            _first([token], work.pages, work.length + 1),
            positions=(work.positions[-1] + 1,),
            masks=masks,
        )


async def _run(
    program: Sequence[Decode], *, at_once: bool, pool: int, step_tokens: int
) -> list[list[int]]:
    model = _model(page_size=SIZE, pages=pool)
    async with scheduler_bench(model, step_tokens=step_tokens, host_pages=40) as bench:
        instances = [bench.open(0, seed=5), bench.open(1, seed=6)]
        for me in instances:
            await bench.allocate(me, HELD)
        if not at_once:
            return [await _singles(bench, instances[d.instance], d) for d in program]
        third = bench.open(2)
        await bench.allocate(
            third, HELD
        )  # the youngest: it makes others move, if the pool is small
        submitted: list[SubmitDecoding] = []
        for each in program:
            pages = -(-(each.length + each.steps - 1) // SIZE)
            work = attrs.evolve(_work(each), pages=_work(each).pages[:pages])
            submitted.append(
                bench.decode(
                    instances[each.instance],
                    work,
                    each.steps,
                    stops=each.stops,
                    queue=each.queue,
                    priority=each.priority,
                )
            )
        for decoding in submitted:
            await decoding.reply.wait()
        return [decoding.feed.tokens for decoding in submitted]


def _in_virtual_time(main: Callable[[], Awaitable[list[list[int]]]]) -> list[list[int]]:
    return trio.run(main, clock=MockClock(autojump_threshold=0))


@settings(max_examples=150, deadline=None)
@given(
    program=st.lists(decodes(), min_size=2, max_size=8),
    step_tokens=st.integers(2, 30),
    pool=st.sampled_from([3 * HELD, 40]),
)
def test_any_program_of_decodings_is_its_single_passes(
    program: list[Decode], step_tokens: int, pool: int
) -> None:
    """Contract K5, Q1, R5, S3: tokens drawn by chance, masks, stops, long passes, few pages."""

    async def singles() -> list[list[int]]:
        return await _run(program, at_once=False, pool=40, step_tokens=512)

    async def decodings() -> list[list[int]]:
        return await _run(program, at_once=True, pool=pool, step_tokens=step_tokens)

    assert _in_virtual_time(decodings) == _in_virtual_time(singles)
