"""A scheduler with more ready than a step holds: who gets the rows, in virtual time."""

from __future__ import annotations

from collections import Counter

import trio

from pie.ids import InstanceId, Priority
from pie.testing import ArithmeticRunner, SimulatedGpu

from .scheduling import Bench, a_pass, scheduler_bench


async def _keep_busy(
    bench: Bench, me: InstanceId, queue: int, rows: Counter[int], priority: Priority
) -> None:
    """One pass of one row after the other."""
    pages = await bench.allocate(me, 1)
    while True:
        work = a_pass([1], pages, 1)
        await bench.submit(me, work, queue=queue, priority=priority).reply.wait()
        rows[me] += 1


async def _rows(
    instances: dict[int, tuple[str, int, Priority]], *, step_tokens: int, seconds: float
) -> Counter[int]:
    """Rows that each instance got; it is given as (user, passes at once, priority)."""
    gpu, rows = SimulatedGpu(ArithmeticRunner()), Counter[int]()
    async with scheduler_bench(gpu.runner, run=gpu, step_tokens=step_tokens) as bench:
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for number, (user, at_once, priority) in instances.items():
                    me = bench.open(number, user)
                    for queue in range(at_once):
                        nursery.start_soon(_keep_busy, bench, me, queue, rows, priority)
    return rows


async def test_under_overload_users_get_the_same_whatever_they_run() -> None:
    """63 instances against one, with 32 passes always wanted by each user at least."""
    one = {0: ("one", 63, Priority.NORMAL)}
    many = dict.fromkeys(range(1, 64), ("many", 1, Priority.NORMAL))
    rows = await _rows(one | many, step_tokens=16, seconds=5)

    of_one, of_many = rows[0], sum(rows[number] for number in many)
    assert 0.48 <= of_one / (of_one + of_many) <= 0.52
    assert max(rows[number] for number in many) - min(rows[number] for number in many) <= 2


async def test_within_a_user_instances_get_the_same_however_much_they_submit() -> None:
    rows = await _rows(
        {0: ("u", 200, Priority.NORMAL), 1: ("u", 8, Priority.NORMAL)}, step_tokens=8, seconds=5
    )

    assert abs(rows[0] - rows[1]) <= 0.02 * rows[0]


async def test_high_priority_goes_first_and_low_does_not_starve() -> None:
    """Passes of low priority wait for two periods of ageing, then have their share."""
    rows = await _rows(
        {0: ("a", 9, Priority.HIGH), 1: ("b", 1, Priority.LOW)}, step_tokens=4, seconds=10
    )

    assert rows[0] > 20 * rows[1]
    assert 2 <= rows[1] <= 3


async def test_a_prompt_is_not_starved_by_decoding_guests_nor_they_by_it() -> None:
    """With room for 16 rows, 100 passes of one row wanted, and a prompt of 400 rows."""
    gpu, rows = SimulatedGpu(ArithmeticRunner()), Counter[int]()
    async with (
        scheduler_bench(gpu.runner, run=gpu, step_tokens=16) as bench,
        trio.open_nursery() as nursery,
    ):
        me, other = bench.open(0, "a"), bench.open(1, "b")
        for queue in range(100):
            nursery.start_soon(_keep_busy, bench, me, queue, rows, Priority.NORMAL)
        pages = await bench.allocate(other, 25)
        await bench.submit(other, a_pass([1] * 400, pages, 400)).reply.wait()
        nursery.cancel_scope.cancel()

    assert len(gpu.steps) <= 400 / 4 + 2
    assert rows[0] >= 8 * len(gpu.steps)
