"""What an instance has for its client."""

from __future__ import annotations

import attrs
import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from trio.testing import wait_all_tasks_blocked

from pie import outbox as module
from pie.ids import EventCode
from pie.messages import BlobSent, Event, Output
from pie.outbox import Dropped, Outbox


@attrs.frozen
class Item:
    number: int
    size: int = 1


async def test_a_full_outbox_slows_its_writer_and_loses_nothing() -> None:
    outbox = Outbox[Item](capacity=2)
    written: list[int] = []

    async def write() -> None:
        for number in range(5):
            await outbox.put(Item(number))
            written.append(number)
        outbox.finish(Item(99))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        assert written == [0, 1]
        read = [item.number async for item in outbox]

    assert read == [0, 1, 2, 3, 4, 99]


async def test_the_last_item_needs_no_room() -> None:
    """A terminal event must not wait for a client that does not read."""
    outbox = Outbox[Item](capacity=1)
    assert outbox.put_nowait(Item(1))
    assert not outbox.put_nowait(Item(2))

    outbox.finish(Item(3))

    assert [item.number async for item in outbox] == [1, 3]


async def test_bytes_fill_it_as_items_do_and_one_large_item_goes_in() -> None:
    """What a guest sends may be larger than what waits for slow clients in all."""
    outbox = Outbox[Item](capacity_bytes=10)
    assert outbox.put_nowait(Item(1, 9))
    assert outbox.put_nowait(Item(2, 1000))
    assert not outbox.put_nowait(Item(3, 0))
    assert await anext(outbox) == Item(1, 9)
    assert not outbox.put_nowait(Item(3, 0))
    assert await anext(outbox) == Item(2, 1000)
    assert outbox.put_nowait(Item(3, 0))


async def test_who_waits_for_room_goes_on_when_the_client_leaves() -> None:
    """Contract X4: detached, the newest are kept; what was lost is told to who comes next."""
    outbox = Outbox[Item](capacity=2)

    async def write() -> None:
        for number in range(6):
            await outbox.put(Item(number, 10))
        outbox.finish(Item(6, 10))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        outbox.detach(keep_bytes=35)
    assert outbox.attach() == Dropped(items=4, bytes=40)
    assert outbox.attach() == Dropped(items=0, bytes=0)

    assert [item.number async for item in outbox] == [4, 5, 6]


async def test_the_end_is_kept_where_nothing_is() -> None:
    outbox = Outbox[Item]()
    outbox.detach(keep_bytes=0)
    assert outbox.put_nowait(Item(1))
    outbox.finish(Item(2, 1000))
    assert outbox.attach() == Dropped(items=1, bytes=1)
    assert [item.number async for item in outbox] == [2]


async def test_empty_items_do_not_pile_up_while_nobody_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They have no bytes, and each costs memory."""
    monkeypatch.setattr(module, "KEPT_ITEMS", 3)
    outbox = Outbox[Item](capacity=2)
    outbox.detach(keep_bytes=100)
    for number in range(10):
        assert outbox.put_nowait(Item(number, 0))
    assert outbox.attach() == Dropped(items=7, bytes=0)
    assert not outbox.put_nowait(Item(10, 0)), "more is left than there is room for"
    assert [item.number for item in await outbox.batch()] == [7, 8, 9]


async def test_a_reader_may_go_and_another_take_over() -> None:
    """What the first took and could not deliver is the second one's first."""
    outbox = Outbox[Item](capacity=2)
    with trio.move_on_after(1):
        await anext(outbox)
    assert outbox.put_nowait(Item(1))
    assert outbox.put_nowait(Item(2))
    outbox.finish(Item(3))
    taken = await outbox.batch()
    outbox.unread(*taken[1:])

    assert [item.number async for item in outbox] == [2, 3]
    assert [item async for item in outbox] == []
    assert await outbox.batch() == []


async def test_a_batch_waits_for_its_first_item() -> None:
    outbox = Outbox[Item]()
    got: list[list[Item]] = []

    async def read() -> None:
        got.append(await outbox.batch())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        assert got == []
        outbox.put_nowait(Item(1))
        outbox.put_nowait(Item(2))

    assert got == [[Item(1), Item(2)]]


def test_items_are_weighed_in_bytes_of_their_contents() -> None:
    """Also a text that cannot be sent as it is: a native guest may have made one."""
    assert Event(EventCode.MESSAGE, "abc").size == 3
    assert Event(EventCode.MESSAGE, "é€").size == 5
    assert Event(EventCode.MESSAGE, "\ud800").size == 3
    assert Output("stdout", b"abcd").size == BlobSent(b"abcd").size == 4


class OutboxMachine(RuleBasedStateMachine):
    """An outbox beside a list. Nobody waits here: the rules ask first whether they would."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox[Item](capacity=4, capacity_bytes=20)
        self.items: list[Item] = []
        self.kept: int | None = None
        self.dropped: list[Item] = []
        self.ended = False
        self.taken: list[Item] = []
        """By the reader, and not delivered yet."""
        self.numbered = 0

    def item(self, size: int) -> Item:
        self.numbered += 1
        return Item(self.numbered, size)

    def size(self) -> int:
        return sum(item.size for item in self.items)

    def trim(self) -> None:
        """The newest that fit are kept, and the end."""
        while self.kept is not None and self.size() > self.kept:
            if self.ended and len(self.items) == 1:
                break
            self.dropped.append(self.items.pop(0))

    @precondition(lambda self: not self.ended)
    @rule(size=st.integers(0, 25))
    def put(self, size: int) -> None:
        item = self.item(size)
        room = self.kept is not None or (len(self.items) < 4 and self.size() < 20)
        assert self.outbox.put_nowait(item) is room
        if room:
            self.items.append(item)
            self.trim()

    @precondition(lambda self: not self.ended)
    @rule(size=st.integers(0, 25))
    def finish(self, size: int) -> None:
        item = self.item(size)
        self.outbox.finish(item)
        self.items.append(item)
        self.ended = True
        self.trim()

    @precondition(lambda self: self.items)
    @rule()
    def take_one(self) -> None:
        reading = self.outbox.__anext__()
        with pytest.raises(StopIteration) as read:
            reading.send(None)
        assert read.value.value == self.items[0]
        self.taken = [self.items.pop(0)]

    @rule()
    def take_all(self) -> None:
        assert self.outbox.take_all_nowait() == self.items
        self.taken, self.items = self.items, []

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def unread(self, data: st.DataObject) -> None:
        """What of it was not delivered."""
        back = self.taken[data.draw(st.integers(0, len(self.taken) - 1), label="delivered") :]
        self.outbox.unread(*back)
        self.items = back + self.items
        self.taken = []
        self.trim()

    @rule(keep=st.integers(0, 50))
    def detach(self, keep: int) -> None:
        self.outbox.detach(keep)
        self.kept = keep
        self.trim()

    @rule()
    def attach(self) -> None:
        lost = sum(item.size for item in self.dropped)
        assert self.outbox.attach() == Dropped(len(self.dropped), lost)
        self.kept = None
        self.dropped = []

    @invariant()
    def it_is_what_the_list_is(self) -> None:
        assert list(self.outbox._items) == self.items
        assert self.outbox._bytes == self.size()
        over = self.kept is None and (len(self.items) >= 4 or self.size() >= 20)
        assert self.outbox._room.ready() is not over


TestAnySequenceOfCallsDoesWhatTheListDoes = OutboxMachine.TestCase
TestAnySequenceOfCallsDoesWhatTheListDoes.settings = settings(
    max_examples=200, stateful_step_count=30, deadline=None, derandomize=True
)
