"""Waiting for one of several events without a nursery."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from pie.signals import Deadline, Signal, Waiter, calling, wait_any


async def test_the_first_of_several_signals_ends_the_wait() -> None:
    first, second = Signal(), Signal()
    done: list[bool] = []

    async def wait() -> None:
        await wait_any((first, second))
        done.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert not done
        second.set()

    assert done
    assert first._waiters == second._waiters == []


async def test_a_deadline_is_ready_when_its_time_has_come() -> None:
    began = trio.current_time()

    await wait_any((Signal(), Deadline(began + 5), Deadline(began + 9)))

    assert trio.current_time() == began + 5


async def test_the_waker_is_told_before_the_task_runs() -> None:
    """So that a guest counts as moving from the moment its answer is there."""
    heard: list[str] = []
    signal = Signal()

    async def wait() -> None:
        await wait_any((signal,), Waiter(lambda: heard.append("woken")))
        heard.append("runs")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        signal.set()
        assert heard == ["woken"]

    assert heard == ["woken", "runs"]


async def test_the_waker_is_told_of_a_deadline_too() -> None:
    heard: list[str] = []

    await wait_any((Deadline(trio.current_time() + 1),), Waiter(lambda: heard.append("woken")))

    assert heard == ["woken"]


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    signal = Signal()
    with trio.move_on_after(1):
        await wait_any((signal,))

    assert signal._waiters == []
    signal.set()


async def test_several_tasks_may_wait_for_one_signal() -> None:
    signal = Signal()
    done: list[int] = []

    async def wait(number: int) -> None:
        await wait_any((signal,))
        done.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(wait, number)
        await wait_all_tasks_blocked()
        signal.set()

    assert sorted(done) == [0, 1, 2]


async def test_a_nudge_wakes_without_telling_unless_it_is_followed_by_more() -> None:
    """A guest that gets a token and has its next pass under way is not waited for."""
    one, other = Signal(), Signal()
    heard: list[str] = []
    waiter = Waiter(lambda: heard.append("woken"))

    async def wait() -> None:
        await wait_any((one, other), waiter)
        heard.append("ran")

    for wakes, wanted in (
        ([one.nudge], ["ran"]),
        ([one.nudge, other.set], ["woken", "ran"]),
        ([one.nudge, other.set, other.set], ["woken", "ran"]),
        ([other.set, one.nudge], ["woken", "ran"]),
    ):
        heard.clear()
        one.clear()
        other.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            for wake in wakes:
                wake()
            assert one.ready()
        assert heard == wanted


async def test_a_callback_runs_within_every_set_and_finds_the_signal_cleared() -> None:
    """Whatever was set before it was there counts, too."""
    signal, seen = Signal(ready=True), list[bool]()

    with calling(lambda: seen.append(signal.ready()), signal):
        at_first = len(seen)
        signal.set()
        signal.nudge()
    signal.set()

    assert at_first == 1
    assert seen == [False, False, False]
    assert signal.ready()
