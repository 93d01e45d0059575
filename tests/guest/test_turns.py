"""The line of guests that begin or go on: how many of it run in one pass of the loop."""

from __future__ import annotations

from collections import Counter

import attrs
import pytest
import trio
import trio.testing

from pie.guest.turns import WIDEST, Turns

SLICE = 1.0
SHORT = SLICE / 1024
"""A power of two: sums and differences of turns are exact."""


@attrs.define(eq=False)
class Line(trio.abc.Instrument):
    """Turns whose time is told, taken by tasks that came in a known order."""

    now: float = 0.0
    passes: int = 0
    began: dict[int, int] = attrs.field(factory=dict)
    """In which pass of the loop each task had its turn."""
    turns: Turns = attrs.field(init=False)
    _open: trio.Event = attrs.field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.turns = Turns(SLICE, lambda: self.now)

    def before_io_wait(self, timeout: float) -> None:
        self.passes += 1

    async def _hold(self) -> None:
        async with self.turns:
            await self._open.wait()

    async def _turn(self, number: int, seconds: float, scope: trio.CancelScope) -> None:
        with scope:
            async with self.turns:
                self._take(number, seconds)

    def _take(self, number: int, seconds: float) -> None:
        self.began[number] = self.passes
        self.now += seconds

    async def run(self, *seconds: float, cancelled: int | None = None) -> None:
        """Let a task stand in line for each of these turns, then begin."""
        scope = trio.CancelScope()
        trio.lowlevel.add_instrument(self)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hold)
            await trio.testing.wait_all_tasks_blocked()
            for number, each in enumerate(seconds):
                with_scope = scope if number == cancelled else trio.CancelScope()
                nursery.start_soon(self._turn, number, each, with_scope)
                await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            self._open.set()
        trio.lowlevel.remove_instrument(self)
        assert not self.turns.locked()

    def per_pass(self) -> list[int]:
        """How many had their turn in each pass that saw one."""
        return [count for _, count in sorted(Counter(self.began.values()).items())]


async def test_short_turns_share_a_pass() -> None:
    """More and more of them, while they leave most of a slice."""
    line = Line()

    await line.run(*[SHORT] * 300)

    assert len(line.began) == 300
    assert max(line.per_pass()) == WIDEST
    assert len(line.per_pass()) <= 12


async def test_who_uses_a_whole_slice_has_a_pass_of_its_own() -> None:
    line = Line()

    await line.run(*[SLICE] * 20)

    assert line.per_pass() == [1] * 20
    order = sorted(line.began, key=line.began.__getitem__)
    # Trio runs the tasks of a pass in any order, and two may be let through to it.
    assert all(abs(place - number) <= 1 for place, number in enumerate(order))


async def test_a_pass_ends_when_its_slice_is_used_up() -> None:
    """Also one that had let many through, since those before them were quick."""
    line = Line()

    await line.run(*[SHORT] * 200, *[SLICE] * 40)

    long = Counter(line.began[number] for number in range(200, 240))
    assert len(line.began) == 240
    assert max(long.values()) == 1


@pytest.mark.parametrize("cancelled", [0, 3, 9])
async def test_who_is_cancelled_leaves_the_line_to_the_others(cancelled: int) -> None:
    line = Line()

    await line.run(*[SLICE / 2] * 10, cancelled=cancelled)

    assert set(range(10)) - set(line.began) <= {cancelled}
    assert len(line.began) >= 9


async def test_who_is_cancelled_before_a_free_turn_gives_it_back() -> None:
    line = Line()

    with trio.CancelScope() as scope:
        scope.cancel()
        async with line.turns:
            raise AssertionError("a turn after being cancelled")

    assert scope.cancelled_caught
    assert not line.turns.locked()
