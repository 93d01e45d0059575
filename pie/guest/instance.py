"""What a running instance is to the host functions it calls, whatever its guest is made of."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Coroutine, Mapping
from typing import Any

import attrs
import trio

from pie.activity import Mover
from pie.config import Limits
from pie.errors import LimitExceeded
from pie.ids import InstanceId, Pointer, QueueId, ResourceKind
from pie.mailbox import Reply
from pie.messages import (
    BrokerMessage,
    ClientItem,
    ModelService,
    Output,
    StoreMessage,
    SupervisorMessage,
)
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
    supervisor: trio.MemorySendChannel[SupervisorMessage]
    outbox: Outbox[ClientItem]
    """Where its client reads what it sends and writes."""
    mover: Mover
    limits: Limits
    offload: Offload
    return_value: str = ""
    random: random.Random = attrs.field(init=False)
    """Source of `wasi:random`, so that a run with the same seed sees the same bytes."""
    held: dict[tuple[int, ResourceKind], set[Pointer]] = attrs.field(factory=dict)
    """Pointers the guest has handles of, by model and kind: only its own calls change them."""
    in_flight: deque[Reply[Any]] = attrs.field(factory=deque)
    """Submitted passes, some of which may have finished."""
    result_entries: int = 0
    """Tokens and distribution entries it has asked for and not taken."""
    blob_bytes: int = 0
    """In blobs that it has made and has."""
    subscriptions: int = 0
    _queues: int = 0

    def __attrs_post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def holdings(self, service: ModelService, kind: ResourceKind) -> set[Pointer]:
        """The pointers of a kind that the guest holds in a model."""
        return self.held.setdefault((service.index, kind), set())

    def next_queue(self) -> QueueId:
        """The number of a queue just created."""
        number = QueueId(self._queues)
        self._queues += 1
        return number

    def check_name(self, name: str, call: str) -> None:
        """Names, topics and keys are kept by the engine: LimitExceeded beyond their size."""
        size, limit = len(name.encode()), self.limits.max_key_bytes
        if size > limit:
            raise LimitExceeded(f"{call}: a name of {size} bytes, the limit is {limit}")

    def deliver(self, item: ClientItem) -> Coroutine[Any, Any, None] | None:
        """Hand `item` to the client; where a slow client leaves no room, what waits for it."""
        return None if self.outbox.put_nowait(item) else self.outbox.put(item)

    async def write(self, stream: str, data: bytes) -> None:
        """Send what the guest wrote to `stream` ("stdout" or "stderr"); waits for a slow client."""
        await self.outbox.put(Output(stream, data))
