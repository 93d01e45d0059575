"""Replies, asks, and the questions of an actor that ends."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pie.errors import Closed, GuestError
from pie.mailbox import Ask, Reply, answering, ask, draining, tell


async def test_an_ask_gets_its_answer() -> None:
    address, mailbox = trio.open_memory_channel[Ask[int]](0)

    async def answer() -> None:
        (await mailbox.receive()).reply.answer(7)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        assert await ask(address, Ask[int]()) == 7


async def test_an_asker_gets_the_callers_mistake() -> None:
    question = Ask[int]()
    with answering(question):
        raise GuestError("no such page")

    with pytest.raises(GuestError, match="no such page"):
        await question.reply.wait()


async def test_our_own_bug_propagates_and_the_asker_is_told_that_the_actor_has_ended() -> None:
    """Else it would wait for ever, in an actor that outlives cancellation."""
    question = Ask[int]()
    with pytest.raises(ZeroDivisionError), answering(question):
        _ = 1 // 0

    with pytest.raises(Closed, match="nobody answers Ask: the actor has ended"):
        question.reply.take()


async def test_an_ended_actor_answers_what_is_left_in_its_mailbox() -> None:
    """Also the questions of senders that still wait for room."""
    address, mailbox = trio.open_memory_channel[Ask[int]](1)
    failed: list[str] = []

    async def caller() -> None:
        with pytest.raises(Closed) as caught:
            await ask(address, Ask[int]())
        failed.append(str(caught.value))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(caller)
        await wait_all_tasks_blocked()
        with draining(mailbox):
            pass

    assert len(failed) == 3


async def test_telling_an_ended_actor_fails_the_question() -> None:
    address, mailbox = trio.open_memory_channel[Ask[int]](math.inf)
    mailbox.close()
    question = Ask[int]()

    tell(address, question)

    with pytest.raises(Closed):
        question.reply.take()


def test_a_reply_is_answered_once() -> None:
    reply = Reply[int]()
    reply.answer(1)

    with pytest.raises(AssertionError, match="twice"):
        reply.answer(2)
