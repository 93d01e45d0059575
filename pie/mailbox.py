"""The whole actor framework: replies, asks, and what happens to the questions of an ended actor.

An address is a `trio.MemorySendChannel`; a mailbox is its receiving end. Every holder of an
address has its own clone and closes it; an actor ends when its last address is closed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

import attrs
import trio

from .errors import Closed, PieError
from .signals import Signal, wait_any

T = TypeVar("T")


class Reply(Signal, Generic[T]):
    """A one-shot slot for an answer. Setting it never blocks; it is also a guest's pollable."""

    __slots__ = ("_error", "_value")

    def __init__(self) -> None:
        # Not by `super().__init__`: every pass of every guest has a reply.
        self._set = False
        self._waiters = []
        self._error: PieError | None = None

    def answer(self, value: T) -> None:
        assert not self.ready(), "answered twice"
        self._value = value
        self.set()

    def fail(self, error: PieError) -> None:
        assert not self.ready(), "answered twice"
        self._error = error
        self.set()

    @property
    def error(self) -> PieError | None:
        """Why there is no answer, or None."""
        return self._error

    def take(self) -> T:
        """The answer; raises the error it failed with. Only after it is ready."""
        assert self.ready(), "not answered yet"
        if self._error is not None:
            # The same error may be taken by several tasks: each starts a traceback of its own.
            raise self._error.with_traceback(None)
        return self._value

    async def wait(self) -> T:
        await wait_any((self,))
        return self.take()


@attrs.define(eq=False)
class Ask(Generic[T]):
    """A message that wants an answer. Like all messages it is never changed; those of which each
    token needs one are not `frozen`, which would make them three times as dear to make.
    """

    reply: Reply[T] = attrs.field(factory=Reply, kw_only=True, repr=False)


async def post(address: trio.MemorySendChannel[Any], question: Ask[T]) -> Reply[T]:
    """Send `question`; its answer to wait for, which may be that nobody is there (`Closed`)."""
    try:
        await address.send(question)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        question.reply.fail(_ended(question))
    except trio.Cancelled:
        question.reply.fail(Closed(f"{type(question).__name__} was never sent"))
        raise
    return question.reply


async def ask(address: trio.MemorySendChannel[Any], question: Ask[T]) -> T:
    """Send `question` and wait for its answer; raises what it fails with, `Closed` included."""
    reply = await post(address, question)
    return await reply.wait()


def tell(address: trio.MemorySendChannel[Any], message: object) -> None:
    """Send without waiting into an unbounded mailbox. A question to an ended actor fails."""
    try:
        address.send_nowait(message)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        if isinstance(message, Ask):
            message.reply.fail(_ended(message))


def _ended(question: Ask[Any]) -> Closed:
    return Closed(f"nobody answers {type(question).__name__}: the actor has ended")


async def receive_burst(mailbox: trio.MemoryReceiveChannel[T]) -> list[T]:
    """Wait for a message; that and all that has arrived with it. Empty at the end of the mailbox.

    For mailboxes that guests can fill without waiting: an actor that takes one message per turn
    of the loop would fall behind a guest that sends hundreds in its own.
    """
    burst: list[T] = []
    with suppress(trio.WouldBlock, trio.EndOfChannel):
        burst.append(await mailbox.receive())
        while True:
            burst.append(mailbox.receive_nowait())
    return burst


class answering:  # used like a function, and a generator costs three times as much
    """Turn a PieError into the failure of `message`.

    Anything else is our bug, or the end of the actor, and propagates; the asker is told that the
    actor has ended, so that it cannot wait for ever.
    """

    __slots__ = ("_message",)

    def __init__(self, message: object) -> None:
        self._message = message

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, traceback: object) -> bool:
        message = self._message
        if error is None or not isinstance(message, Ask):
            return False
        if isinstance(error, PieError):
            message.reply.fail(error)
            return True
        if not message.reply.ready():
            message.reply.fail(_ended(message))
        return False


@contextmanager
def draining(mailbox: trio.MemoryReceiveChannel[Any]) -> Iterator[None]:
    """On the way out, close `mailbox` and answer every question left in it with `Closed`."""
    try:
        yield
    finally:
        left: list[Any] = []
        while True:
            try:
                left.append(mailbox.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
                break
        mailbox.close()
        for message in left:
            if isinstance(message, Ask) and not message.reply.ready():
                message.reply.fail(_ended(message))
