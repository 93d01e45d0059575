"""What a running instance is to the host functions it calls, whatever its guest is made of."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import attrs
import trio

from pie.activity import Mover
from pie.config import Limits
from pie.ids import InstanceId, QueueId
from pie.messages import BrokerMessage, ClientItem, ModelService, Output, StoreMessage
from pie.offload import Offload
from pie.outbox import Outbox


@attrs.define(eq=False, kw_only=True)
class Instance:
    """Facts, addresses and limits of one instance."""

    id: InstanceId
    uuid: str
    user: str
    seed: int
    arguments: tuple[str, ...]
    models: Mapping[str, ModelService]
    """In the order of the configuration."""
    broker: trio.MemorySendChannel[BrokerMessage]
    store: trio.MemorySendChannel[StoreMessage]
    outbox: Outbox[ClientItem]
    """Where its client reads what it sends and writes."""
    mover: Mover
    limits: Limits
    offload: Offload
    return_value: str = ""
    random: random.Random = attrs.field(init=False)
    """Source of `wasi:random`, so that a run with the same seed sees the same bytes."""
    state: dict[str, Any] = attrs.field(factory=dict)
    """What host interfaces keep per instance, by interface name."""
    _queues: int = 0

    def __attrs_post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def next_queue(self) -> QueueId:
        """The number of a queue just created."""
        number = QueueId(self._queues)
        self._queues += 1
        return number

    async def write(self, stream: str, data: bytes) -> None:
        """Send what the guest wrote to `stream` ("stdout" or "stderr"); waits for a slow client."""
        await self.outbox.put(Output(stream, data))
