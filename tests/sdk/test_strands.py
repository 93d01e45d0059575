"""Concurrency in a component: coroutines over block and poll."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from inferlet import Failure
from inferlet._strands import Loop, suspend


class Clock:
    """Pollables are points of a virtual time; waiting moves it."""

    def __init__(self) -> None:
        self.now = 0
        self.blocks: list[int] = []
        self.polls: list[list[int]] = []

    def block(self, at: int) -> None:
        self.blocks.append(at)
        self.now = max(self.now, at)

    def poll(self, times: list[int]) -> list[int]:
        self.polls.append(times)
        self.now = max(self.now, min(times))
        return [index for index, at in enumerate(times) if at <= self.now]


def run(make: Callable[[Clock], Coroutine[Any, Any, Any]]) -> tuple[Any, Clock]:
    clock = Clock()
    return Loop(clock.block, clock.poll).run(make(clock)), clock


async def until(at: int, result: Any = None) -> Any:
    await suspend(at)
    return result


async def gather(*strands: Coroutine[Any, Any, Any]) -> Any:
    return await suspend(list(strands))


def test_one_strand_blocks_and_never_polls() -> None:
    result, clock = run(lambda _: until(3, "x"))
    assert (result, clock.blocks, clock.polls) == ("x", [3], [])


def test_several_strands_are_polled_together_and_the_last_is_blocked_on() -> None:
    result, clock = run(lambda _: gather(until(3, "a"), until(1, "b"), until(3, "c"), until(9)))
    assert result == ["a", "b", "c", None]
    assert clock.polls == [[3, 1, 3, 9], [3, 3, 9]]
    assert clock.blocks == [9]


def test_gathering_nests() -> None:
    async def both(at: int) -> Any:
        first = await gather(until(at, at), until(at + 1, at + 1))
        return sum(first) + await until(at + 2, 0)

    result, clock = run(lambda _: gather(both(10), both(20), gather()))
    assert result[:2] == [21, 41]
    assert clock.now == 22


def test_the_first_failure_ends_the_others_and_reaches_the_parent() -> None:
    ended: list[str] = []

    async def waits(name: str) -> None:
        try:
            await gather(until(100), until(200))
        finally:
            ended.append(name)

    async def fails() -> None:
        await suspend(5)
        raise Failure("no")

    async def parent(_: Clock) -> str:
        with pytest.raises(Failure, match="no"):
            await gather(waits("a"), fails(), waits("b"))
        await suspend(7)
        return "went on"

    result, clock = run(parent)
    assert result == "went on"
    assert sorted(ended) == ["a", "b"]
    assert clock.now == 7


def test_what_main_raises_comes_out() -> None:
    async def main(_: Clock) -> None:
        await suspend(1)
        raise Failure("out")

    with pytest.raises(Failure, match="out"):
        run(main)


def test_a_strand_that_never_waits_needs_no_poll() -> None:
    async def at_once(value: int) -> int:
        return value

    result, clock = run(lambda _: gather(*(at_once(n) for n in range(5))))
    assert result == [0, 1, 2, 3, 4]
    assert not clock.polls
    assert not clock.blocks


def test_a_strand_knows_when_no_other_waits_or_could_run() -> None:
    """It may block by itself then, and nobody is kept waiting."""
    clock = Clock()
    loop = Loop(clock.block, clock.poll)

    async def looks(at: int) -> list[bool]:
        seen = [loop.alone]
        await suspend(at)
        return [*seen, loop.alone]

    async def parent() -> list[Any]:
        return [loop.alone, *await gather(looks(1), looks(2)), loop.alone]

    assert loop.run(parent()) == [True, [False, False], [False, True], True]
