"""Runs a model's work, one piece at a time, wherever the model lives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar, assert_never

import attrs
import trio

from pie.batch import Batch, BatchResult, ModelRunner
from pie.errors import DeviceStalled, PassFailed
from pie.mailbox import Ask, answering, ask, draining
from pie.messages import (
    Adapt,
    ExecutorMessage,
    ReadEmbeddings,
    ReadPages,
    RunBatch,
    RunSteps,
    WritePages,
)
from pie.multistep import MultiStep

T = TypeVar("T")


class Device(Protocol):
    """A loaded model, and how its methods are called without holding up the loop.

    A call that is cancelled may go on all the same, in a thread: then the next one waits for it,
    so that the runner never has two at once. What it gives is dropped.
    """

    @property
    def runner(self) -> ModelRunner: ...

    async def run(self, batch: Batch) -> BatchResult:
        """One step; raises PassFailed when the batch is lost."""
        ...

    async def run_steps(self, steps: MultiStep) -> None:
        """Several, of a runner that makes them; raises PassFailed when the last one is lost."""
        ...

    async def apply(self, method: Callable[..., T], /, *arguments: object) -> T:
        """Call another method of the runner."""
        ...


@attrs.define(eq=False)
class Executor:
    """The only one that calls a model. Anything but a PieError out of it stops the engine."""

    _mailbox: trio.MemoryReceiveChannel[ExecutorMessage]
    _device: Device

    async def run(self) -> None:
        with draining(self._mailbox):
            async for message in self._mailbox:
                with answering(message):
                    await self._handle(message)

    async def _handle(self, message: ExecutorMessage) -> None:
        runner, apply = self._device.runner, self._device.apply
        match message:
            case RunBatch(batch):
                message.reply.answer(await self._device.run(batch))
            case RunSteps(steps):
                await self._device.run_steps(steps)
                message.reply.answer(None)
            case ReadPages(pages):
                message.reply.answer(await apply(runner.read_pages, pages))
            case WritePages(pages, contents):
                await apply(runner.write_pages, pages, contents)
                message.reply.answer(None)
            case ReadEmbeddings(slots):
                message.reply.answer(await apply(runner.read_embeddings, slots))
            case Adapt(command):
                message.reply.answer(await apply(runner.adapt, command))
            case _:
                assert_never(message)


async def insist(
    executor: trio.MemorySendChannel[ExecutorMessage], question: Callable[[], Ask[T]]
) -> T:
    """Ask for what cannot be done without; once more if the device loses it, as a lost step (F7).

    Raises PassFailed when it loses the second as well, or does not answer at all.
    """
    try:
        return await ask(executor, question())
    except DeviceStalled:
        raise
    except PassFailed:
        return await ask(executor, question())
