"""One seed gives one order of tasks."""

from __future__ import annotations

import trio

from pie.testing.determinism import run_simulated, task_order


async def _order() -> list[tuple[int, float]]:
    seen: list[tuple[int, float]] = []

    async def one(number: int) -> None:
        for _ in range(5):
            await trio.sleep(0.25)
            seen.append((number, trio.current_time()))

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(one, number)
    return [(number, time - start) for number, time in seen]


def test_a_seed_decides_the_order_of_tasks() -> None:
    orders = {seed: run_simulated(_order, seed=seed) for seed in range(5)}

    for seed, order in orders.items():
        assert run_simulated(_order, seed=seed) == order
    assert len({tuple(order) for order in orders.values()}) == 5


def test_outside_nothing_has_changed() -> None:
    """Trio goes on with its own stream, unseeded or another tool's."""
    trio_run = trio._core._run
    switch, stream = trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r.getstate()
    with task_order(3):
        pass

    assert trio_run._r.getstate() == stream
    assert switch == trio_run._ALLOW_DETERMINISTIC_SCHEDULING
