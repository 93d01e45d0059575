"""Runs a model's batches, one at a time, wherever the model lives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import attrs
import trio

from pie.batch import Batch, BatchResult
from pie.mailbox import answering, draining
from pie.messages import RunBatch

RunModel: TypeAlias = Callable[[Batch], Awaitable[BatchResult]]
"""One step of a model; raises PassFailed when the batch is lost."""


@attrs.define(eq=False)
class Executor:
    """The only one that calls a model. Anything but PassFailed out of it stops the engine."""

    _mailbox: trio.MemoryReceiveChannel[RunBatch]
    _run_model: RunModel

    async def run(self) -> None:
        with draining(self._mailbox):
            async for message in self._mailbox:
                with answering(message):
                    message.reply.answer(await self._run_model(message.batch))
