"""What an instance has for its client."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from pie.outbox import Outbox


async def test_a_full_outbox_slows_its_writer_and_loses_nothing() -> None:
    outbox = Outbox[int](capacity=2)
    written: list[int] = []

    async def write() -> None:
        for number in range(5):
            await outbox.put(number)
            written.append(number)
        outbox.finish(99)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        assert written == [0, 1]
        read = [number async for number in outbox]

    assert read == [0, 1, 2, 3, 4, 99]


async def test_the_last_item_needs_no_room() -> None:
    """A terminal event must not wait for a client that does not read."""
    outbox = Outbox[int](capacity=1)
    assert outbox.put_nowait(1)
    assert not outbox.put_nowait(2)

    outbox.finish(3)

    assert [number async for number in outbox] == [1, 3]
