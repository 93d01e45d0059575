"""Work is done once for all who wait, and a lock goes round between users."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pie.errors import UsageError
from pie.server.shared_work import SharedWork, Turns


@asynccontextmanager
async def sharing() -> AsyncIterator[tuple[SharedWork[str, int], trio.Nursery]]:
    async with trio.open_nursery() as nursery, trio.open_nursery() as askers:
        yield SharedWork(nursery), askers


async def test_those_who_want_the_same_get_it_from_one() -> None:
    begun = 0
    got: list[int] = []

    async def work() -> int:
        nonlocal begun
        begun += 1
        await trio.sleep(1)
        return begun

    async with sharing() as (shared, askers):

        async def ask() -> None:
            got.append(await shared.do("key", work))

        for _ in range(3):
            askers.start_soon(ask)
        await trio.sleep(2)
        assert (begun, got) == (1, [1, 1, 1])

        assert await shared.do("key", work) == 2, "what is over is begun anew"


async def test_other_keys_are_other_work() -> None:
    async with sharing() as (shared, askers):
        done: list[str] = []

        async def work(key: str) -> None:
            async def one() -> int:
                await trio.sleep(1)
                return len(key)

            assert await shared.do(key, one) == len(key)
            done.append(key)

        askers.start_soon(work, "a")
        askers.start_soon(work, "bb")
        await wait_all_tasks_blocked()
        assert shared.going_on() in (("a", "bb"), ("bb", "a"))
        await trio.sleep(1.5)
        assert sorted(done) == ["a", "bb"]


async def test_a_failure_is_everybodys_who_waits() -> None:
    failed = 0

    async def work() -> int:
        await trio.sleep(1)
        raise UsageError("no")

    async with sharing() as (shared, askers):

        async def ask() -> None:
            nonlocal failed
            with pytest.raises(UsageError, match="no"):
                await shared.do("key", work)
            failed += 1

        for _ in range(3):
            askers.start_soon(ask)
        await wait_all_tasks_blocked()
        await shared.join("key")
        await wait_all_tasks_blocked()

        assert failed == 3
        await shared.join("key")


async def test_work_goes_on_while_one_waits_for_it() -> None:
    cancelled = False

    async def work() -> int:
        nonlocal cancelled
        try:
            await trio.sleep(10)
        except trio.Cancelled:
            cancelled = True
            raise
        return 7

    async with sharing() as (shared, _):
        async with trio.open_nursery() as nursery:
            first = trio.CancelScope()

            async def impatient() -> None:
                with first:
                    await shared.do("key", work)

            async def patient() -> None:
                assert await shared.do("key", work) == 7

            nursery.start_soon(impatient)
            await wait_all_tasks_blocked()
            nursery.start_soon(patient)
            await wait_all_tasks_blocked()
            first.cancel()
        assert not cancelled

        with trio.move_on_after(1):
            await shared.do("key", work)
        assert shared.going_on() == ()
        await wait_all_tasks_blocked()
        assert cancelled


async def test_who_comes_after_the_last_has_left_begins_anew() -> None:
    """The work that is being cancelled may take a while to end."""
    running = 0

    async def work() -> int:
        nonlocal running
        running += 1
        try:
            await trio.sleep(1)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
        return running

    async with sharing() as (shared, _):
        with trio.move_on_after(0.5):
            await shared.do("key", work)

        assert await shared.do("key", work) == 2


async def test_users_take_turns() -> None:
    turns = Turns()
    order: list[str] = []

    async def work(user: str, number: int) -> None:
        async with turns.turn(user):
            await trio.sleep(1)
            order.append(f"{user}{number}")

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(work, "a", number)
            await wait_all_tasks_blocked()
        nursery.start_soon(work, "b", 0)
        await wait_all_tasks_blocked()
        nursery.start_soon(work, "c", 0)
        nursery.start_soon(work, "b", 1)

    assert order[:2] == ["a0", "a1"]
    assert set(order[2:4]) == {"b0", "c0"}
    assert order[4:] in (["a2", "b1", "a3"], ["b1", "a2", "a3"])


async def test_who_gives_up_waiting_is_passed_over() -> None:
    turns = Turns()
    order: list[str] = []
    scopes = {user: trio.CancelScope() for user in "bcd"}

    async def work(user: str) -> None:
        with scopes[user]:
            async with turns.turn(user):
                order.append(user)

    async with trio.open_nursery() as nursery, turns.turn("a"):
        for user in scopes:
            nursery.start_soon(work, user)
            await wait_all_tasks_blocked()
        scopes["c"].cancel()
        await wait_all_tasks_blocked()
        scopes["b"].cancel()  # it is called before it can have left the line

    assert order == ["d"]
    async with turns.turn("e"):
        assert order == ["d"]
