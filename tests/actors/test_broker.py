"""The broker: receives in order, nothing lost, and no flood that others wait behind."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio
from trio.testing import wait_all_tasks_blocked

from pie.actors.broker import Broker
from pie.ids import InstanceId
from pie.mailbox import ask
from pie.messages import (
    Broadcast,
    BrokerMessage,
    CancelReceive,
    OpenMailbox,
    Receive,
    SendToInstance,
)

ME = InstanceId(1)


@asynccontextmanager
async def broker() -> AsyncIterator[trio.MemorySendChannel[BrokerMessage]]:
    address, mailbox = trio.open_memory_channel[BrokerMessage](math.inf)
    async with trio.open_nursery() as nursery, address:
        nursery.start_soon(Broker(mailbox).run)
        address.send_nowait(OpenMailbox(ME, "local"))
        yield address


@attrs.define(eq=False)
class Texts:
    """A client and its instance's receives, all at once in the order given."""

    address: trio.MemorySendChannel[BrokerMessage]

    def receive(self, count: int) -> list[Receive]:
        questions = [Receive(ME) for _ in range(count)]
        for question in questions:
            self.address.send_nowait(question)
        return questions

    async def send(self, *texts: str) -> None:
        for text in texts:
            await ask(self.address, SendToInstance(ME, text))

    async def cancel(self, *questions: Receive) -> None:
        for question in questions:
            self.address.send_nowait(CancelReceive(ME, question))
        await wait_all_tasks_blocked()


async def test_a_message_of_a_dropped_receive_goes_to_the_receive_that_waits() -> None:
    """Contract X4: it is not kept for a later one while an earlier one waits."""
    async with broker() as address:
        texts = Texts(address)
        dropped, waiting = texts.receive(2)
        await texts.send("first")
        await texts.cancel(dropped)
        assert waiting.reply.take() == "first"


async def test_messages_of_dropped_receives_keep_their_order() -> None:
    async with broker() as address:
        texts = Texts(address)
        dropped = texts.receive(3)
        await texts.send("first", "second", "third", "fourth")
        await texts.cancel(*dropped)
        again = texts.receive(4)
        await wait_all_tasks_blocked()
        received = [question.reply.take() for question in again]

    assert received == ["first", "second", "third", "fourth"]


async def test_a_flood_of_broadcasts_is_read_in_one_turn() -> None:
    """A guest may broadcast in a loop: its messages must not pile up before those of others."""
    async with broker() as address:
        await wait_all_tasks_blocked()
        for _ in range(1000):
            address.send_nowait(Broadcast(ME, "topic", "text"))
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        assert address.statistics().current_buffer_used == 0


async def test_dropping_a_pending_receive_costs_the_same_however_many_there_are() -> None:
    """Receives end newest first with their guest, which may have had a hundred thousand."""
    async with broker() as address:
        texts = Texts(address)
        questions = texts.receive(20_000)
        await wait_all_tasks_blocked()
        await texts.cancel(*reversed(questions))
        await texts.send("text")
        (last,) = texts.receive(1)
        await wait_all_tasks_blocked()
        assert last.reply.take() == "text"
