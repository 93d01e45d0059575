"""Admission of guests by the memory mappings they need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

from pie.errors import UsageError
from pie.guest import mappings
from pie.guest.mappings import Mappings


class Process:
    """Counts the mappings of guests that need `each`, as a thread would: others run meanwhile."""

    def __init__(self, each: int) -> None:
        self.each, self.guests, self.counts = each, 0, 0

    async def count(self, function: Callable[..., Any], /, *arguments: object) -> Any:
        assert function is mappings.count_mappings
        self.counts += 1
        before = self.guests * self.each
        await trio.sleep(0.05)
        return before


async def fill(process: Process, room: Mappings) -> list[int]:
    """Add guests until one is refused."""
    begun: list[int] = []
    while True:
        if not room.room():
            try:
                await room.make_sure()
            except UsageError:
                return begun
        begun.append(room.begin())
        process.guests += 1
        room.complete()


@pytest.mark.parametrize("each", [4, 7])
async def test_guests_are_admitted_by_what_they_need(each: int) -> None:
    process = Process(each)
    admitted = len(await fill(process, Mappings(process.count, limit=7000)))
    fitting = 7000 // (each + 1)
    assert fitting - 20 <= admitted <= fitting
    assert process.counts < 12


async def test_who_arrives_while_mappings_are_counted_is_taken_for_the_most_hungry() -> None:
    process = Process(7)
    room = Mappings(process.count, limit=7000)

    async def one() -> None:
        try:
            if not room.room():
                await room.make_sure()
        except UsageError:
            return
        room.begin()
        process.guests += 1
        await trio.sleep(1)  # in line for its first slice: it has no memory yet
        room.complete()

    async with trio.open_nursery() as nursery:
        for _ in range(3000):
            nursery.start_soon(one)
    assert process.guests * 7 <= 7000


async def test_a_full_process_admits_again_when_guests_have_ended() -> None:
    process = Process(7)
    room = Mappings(process.count, limit=7000)
    begun = await fill(process, room)
    counts = process.counts
    with pytest.raises(UsageError, match=rf"{len(begun)} run, .* {7 * len(begun)} memory mappings"):
        await room.make_sure()
    assert process.counts == counts, "nothing has changed, so nothing is counted"
    for count in begun[:100]:
        process.guests -= 1
        room.end(count)
    assert len(await fill(process, room)) > 80
    assert process.guests * 7 <= 7000


def test_this_process_has_mappings() -> None:
    assert 10 < mappings.count_mappings() < mappings.most_mappings()
