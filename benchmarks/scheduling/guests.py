"""Scripted guests that talk to a model's scheduler directly, and keep the times of their tokens."""

from __future__ import annotations

from typing import TypeVar

import attrs
import trio

from pie.activity import Mover
from pie.errors import PieError
from pie.ids import InstanceId, Pointer, Priority, QueueId, ResourceKind
from pie.mailbox import Ask
from pie.messages import (
    AllocatePointers,
    EndInstance,
    ForwardPass,
    ModelService,
    OpenInstance,
    Sample,
    SubmitPass,
)
from pie.signals import Waiter, wait_any

T = TypeVar("T")

TOKEN = 97


@attrs.define(eq=False)
class Guest:
    """One instance. Like a real one, it moves from each answer until it waits again."""

    service: ModelService
    number: int
    user: str = "user"
    times: list[float] = attrs.field(factory=list)
    """When its tokens came."""
    latencies: list[float] = attrs.field(factory=list)
    """Of each token, since the guest could ask for it."""
    _mover: Mover = attrs.field(init=False)
    _pages: tuple[Pointer, ...] = ()
    _each: int = 0
    """Pages of a queue."""

    def __attrs_post_init__(self) -> None:
        self._mover = Mover([self.service.activity])

    async def open(self, slots: int, queues: int = 1) -> None:
        """Be an instance with room for so many KV slots of each queue."""
        self._mover.start()
        me = InstanceId(self.number)
        self.service.tell(OpenInstance(me, self.user, self.number, self._mover, _evicted))
        self._each = -(-slots // self.service.info.page_size)
        pages = self._each * queues
        asked = AllocatePointers(me, ResourceKind.KV_PAGE, pages)
        self._pages = await self._ask(asked)

    async def close(self) -> None:
        await self._ask(EndInstance(InstanceId(self.number), drain=False))
        self._mover.stop()

    async def run(self, rows: int, length: int, queue: int = 0) -> None:
        """A pass of `rows` inputs that ends at `length` KV slots; a token comes of it."""
        began = trio.current_time()
        first = queue * self._each
        pages = self._pages[first : first - (-length // self.service.info.page_size)]
        work = ForwardPass(
            inputs=(TOKEN,) * rows,
            positions=tuple(range(length - rows, length)),
            pages=pages,
            length=length,
            outputs=(Sample(rows - 1, 0.0),),
        )
        me = InstanceId(self.number)
        await self._ask(SubmitPass(me, QueueId(queue), Priority.NORMAL, work))
        now = trio.current_time()
        self.times.append(now)
        self.latencies.append(now - began)

    async def decode(self, context: int, tokens: int) -> None:
        for length in range(context + 1, context + tokens + 1):
            await self.run(1, length)

    async def think(self, seconds: float) -> None:
        """Wait for something that is not the engine's: a tool, a client."""
        self._mover.stop()
        await trio.sleep(seconds)
        self._mover.start()

    async def _ask(self, question: Ask[T]) -> T:
        self.service.tell(question)  # type: ignore[arg-type]  # one of the SchedulerMessages
        self._mover.stop()
        await wait_any((question.reply,), Waiter(self._mover.start))
        return question.reply.take()


def _evicted(error: PieError) -> None:
    raise error
