"""How much of a long pass goes beside short ones: the pure rule, and the steps it makes."""

from __future__ import annotations

import math
from itertools import pairwise

import attrs
import pytest
import trio

from pie.actors.allowance import LEAST, Allowance
from pie.actors.prediction import StepTime
from pie.messages import SubmitPass
from pie.signals import Waiter, wait_any
from pie.testing import ArithmeticRunner, LinearTiming, SimulatedGpu

from .scheduling import Bench, a_pass, scheduler_bench

OVERHEAD, ROW = 0.006, 25e-6


def a_fit() -> StepTime:
    """Of a machine whose steps take 6 ms and 25 µs for each row."""
    fit = StepTime()
    for passes, rows in ((1, 1), (8, 8), (8, 200), (1, 300), (32, 32), (2, 500)) * 5:
        fit.learn(passes, rows, 0, OVERHEAD + ROW * rows)
    return fit


@attrs.frozen
class Chunk:
    count: int = 1
    slots: int = 0


def an_allowance(slowdown: float, fit: StepTime | None = None) -> Allowance:
    """After a step in which a prompt of 1,000 was alone."""
    allowance = Allowance(fit or a_fit(), slowdown)
    allowance.begin([], moving=0)
    allowance.spend(Chunk(1000))
    return allowance


def test_a_long_pass_may_lengthen_a_step_by_the_agreed_part() -> None:
    allowance = an_allowance(1.8)
    allowance.begin([Chunk()] * 40, moving=0)
    rows = allowance.rows(0)

    assert rows is not None
    assert rows * ROW == pytest.approx(0.8 * (OVERHEAD + 40 * ROW), rel=0.03)


def test_several_long_passes_share_what_is_allowed() -> None:
    allowance = an_allowance(1.8)
    allowance.begin([Chunk()] * 40, moving=0)
    all_of_it = allowance.rows(0)
    allowance.spend(Chunk(count=100))
    rest = allowance.rows(0)

    assert all_of_it is not None
    assert rest == pytest.approx(all_of_it - 100, abs=3)


def test_alone_a_long_pass_may_have_any_number_of_rows() -> None:
    allowance = an_allowance(1.8)
    allowance.begin([], moving=0)

    assert allowance.rows(0) is None


def test_guests_on_their_way_count_like_those_in_the_last_steps() -> None:
    """The step without short passes must not be longer than one with them."""
    allowance = an_allowance(1.8)
    allowance.begin([Chunk()] * 40, moving=0)
    beside = allowance.rows(0)
    allowance.begin([], moving=40)
    alone = allowance.rows(0)

    assert beside is not None
    assert alone is not None
    assert alone * ROW == pytest.approx(1.8 * (OVERHEAD + 40 * ROW) - OVERHEAD, rel=0.03)


def test_the_first_long_pass_progresses_however_little_is_allowed() -> None:
    allowance = an_allowance(1.000001)
    allowance.begin([Chunk()], moving=0)
    first = allowance.rows(0)
    allowance.spend(Chunk(count=LEAST))
    second = allowance.rows(0)

    assert first == LEAST
    assert second is not None
    assert second <= 0


def test_rows_that_seem_to_cost_nothing_are_doubled_at_most() -> None:
    """On an accelerator that waits for memory, the first rows do cost nothing."""
    fit = StepTime()
    for rows in (8, 100, 8, 130) * 5:
        fit.learn(8, rows, 0, OVERHEAD)
    allowance = Allowance(fit, 1.8)
    given = []
    for _ in range(4):
        allowance.begin([Chunk()] * 8, moving=0)
        rows = allowance.rows(0) or 0
        allowance.spend(Chunk(rows))
        given.append(rows)

    assert given == [64, 128, 256, 512]


async def _decode(bench: Bench, number: int, tokens: int, times: list[float]) -> None:
    """Like a guest: it moves from its answer until it waits again."""
    me = bench.open(number)
    mover = bench.movers[me]
    waiter = Waiter(mover.start)
    pages = await bench.allocate(me, 8)
    mover.start()
    for length in range(1, tokens + 1):
        message = bench.submit(me, a_pass([97], pages[: -(-length // 16)], length))
        mover.stop()
        await wait_any((message.reply,), waiter)
        times.append(trio.current_time())
    mover.stop()


async def _mixed(slowdown: float, prompts: int) -> tuple[list[float], list[int]]:
    """Gaps between the tokens of 32 guests, of which some steps also hold prompts of 1,000."""
    gpu = SimulatedGpu(
        ArithmeticRunner(pages=1000, context_length=2000), LinearTiming(OVERHEAD, ROW)
    )
    times: list[list[float]] = [[] for _ in range(32)]
    async with (
        scheduler_bench(gpu.runner, run=gpu, prefill_slowdown=slowdown) as bench,
        trio.open_nursery() as nursery,
    ):
        for number in range(32):
            nursery.start_soon(_decode, bench, number, 100, times[number])
        me = bench.open(99)
        pages = await bench.allocate(me, 64)
        await trio.sleep(0.2)
        for _ in range(prompts):
            await bench.submit(me, a_pass([1] * 1000, pages, 1000)).reply.wait()
    gaps = sorted(b - a for own in times for a, b in pairwise(own))
    return gaps, [step.rows for step in gpu.steps]


async def test_prompts_beside_decoding_guests_hardly_delay_their_tokens() -> None:
    """Every gap is at most twice the usual one; without the rule, one of 512 rows is."""
    even, _ = await _mixed(1.8, prompts=4)
    uneven, _ = await _mixed(math.inf, prompts=4)

    assert even[-1] <= 2 * even[len(even) // 2]
    assert uneven[-1] > 2 * uneven[len(uneven) // 2]


async def test_a_prompt_alone_fills_its_steps() -> None:
    gpu = SimulatedGpu(ArithmeticRunner(pages=1000, context_length=2000))
    async with scheduler_bench(gpu.runner, run=gpu) as bench:
        me = bench.open()
        pages = await bench.allocate(me, 64)
        await bench.submit(me, a_pass([1] * 1000, pages, 1000)).reply.wait()

    assert [step.rows for step in gpu.steps] == [512, 488]


async def test_a_short_pass_behind_a_long_one_does_not_pull_it_in_whole() -> None:
    """A prompt and the first decode pass are often submitted together."""
    gpu = SimulatedGpu(
        ArithmeticRunner(pages=1000, context_length=2000), LinearTiming(OVERHEAD, ROW)
    )
    times: list[list[float]] = [[] for _ in range(8)]
    async with scheduler_bench(gpu.runner, run=gpu) as bench, trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(_decode, bench, number, 60, times[number])
        me = bench.open(99)
        pages = await bench.allocate(me, 64)
        await trio.sleep(0.2)
        bench.submit(me, a_pass([1] * 300, pages[:19], 300, outputs=()))
        last: SubmitPass = bench.submit(me, a_pass([1], pages[:19], 301))
        await last.reply.wait()

    assert max(step.rows for step in gpu.steps) < 8 + 300


def test_where_rows_seem_free_the_rest_of_a_pass_still_has_its_price() -> None:
    """Found by simulation: a fit may say so, and what is allowed be used up all the same."""
    fit = StepTime()
    fit._fit = (OVERHEAD, 0.0, 0.0, 1e-6)
    allowance = an_allowance(1.5, fit)
    allowance.begin([Chunk()], moving=0)

    assert allowance.rows(100_000) == LEAST
    allowance.spend(Chunk(count=LEAST, slots=100_000))
    assert allowance.rows(100_000) == 0
