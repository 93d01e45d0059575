"""Runs the commands on adapter and embedding slots, between two steps of a model."""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs
import trio

from pie.batch import ClearAdapter, ints
from pie.errors import DeviceStalled, PassFailed
from pie.ids import ResourceKind
from pie.mailbox import ask
from pie.messages import Adapt, ExecutorMessage, ReadEmbeddings, RunCommand
from pie.probes import sometimes

from .executor import insist
from .pages import PageTable
from .passes import Pending, PendingCommand


@attrs.define(eq=False)
class Commands:
    """What commands mean to the executor."""

    _table: PageTable
    _executor: trio.MemorySendChannel[ExecutorMessage]

    async def clear_stale(self) -> list[Pending]:
        """Empty the adapter slots that have a new owner (R3).

        What fails because the device does not do it, which will be tried again.
        """
        pool = self._table.pools[ResourceKind.ADAPTER]
        failed: list[Pending] = []
        error: PassFailed | None = None
        for number in pool.take_stale():
            if not isinstance(error, DeviceStalled):
                error = await self._clear(number)
            if error is not None:
                sometimes("an adapter slot cannot be cleared")
                if number not in pool.free:
                    pool.stale.add(number)
                reason = PassFailed(f"its adapter slot could not be cleared: {error}")
                failed += self._table.binding.fail_users(ResourceKind.ADAPTER, number, reason)
        return failed

    async def _clear(self, number: int) -> PassFailed | None:
        try:
            await insist(self._executor, partial(Adapt, ClearAdapter(number)))
        except PassFailed as error:
            return error
        return None

    async def run(self, command: PendingCommand) -> Any:
        """The command's answer; raises PassFailed."""
        message: RunCommand = command.token
        numbers = [slot.number for slot in command.slots if slot.number is not None]
        if message.command is not None:
            (slot,) = numbers
            return await ask(self._executor, Adapt(attrs.evolve(message.command, slot=slot)))
        vectors = await ask(self._executor, ReadEmbeddings(ints(numbers)))
        stale = self._table.pools[ResourceKind.EMBEDDING].stale
        for number, vector in zip(numbers, vectors, strict=True):
            if number in stale:
                sometimes("an embedding slot is read before it is cleared")
                vector[:] = 0  # a former owner's, not cleared yet (R3)
        return vectors
