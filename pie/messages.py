"""Every message between actors, frozen, grouped by recipient.

A message either *tells* or *asks*: an `Ask[T]` carries its own one-shot reply.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, TypeVar

import attrs
import trio

from .activity import Activity, Mover
from .batch import Batch, BatchResult, ModelInfo
from .ids import EventCode, InstanceId, Pointer, Priority, QueueId, ResourceKind
from .mailbox import Ask, tell
from .outbox import Outbox

T = TypeVar("T")

# --------------------------------------------------------------------------- values


@attrs.frozen
class Sample:
    """An output slot that yields a token: `logits / temperature`, filters, draw (contract 6)."""

    index: int
    temperature: float
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0


@attrs.frozen
class Rank:
    """An output slot that yields the `k` most probable tokens with their probabilities."""

    index: int
    temperature: float
    k: int


@attrs.frozen(eq=False, kw_only=True)
class ForwardPass:
    """A validated pass, frozen by `execute`. Lists are never changed after that.

    `inputs[i]` is a token id, or `-1 - pointer` for an embedding slot. Input i is written to slot
    `length - len(inputs) + i` of the pages, and sees the slots up to its own but for what
    `masks[i]` (runs: attend, hide, attend, ...) hides; no mask, or an empty row, hides nothing.
    """

    inputs: tuple[int, ...]
    positions: tuple[int, ...]
    pages: tuple[Pointer, ...]
    length: int
    masks: tuple[tuple[int, ...], ...] | None = None
    outputs: tuple[Sample | Rank, ...] = ()
    stored: tuple[tuple[int, Pointer], ...] = ()
    """(input index, embedding slot) pairs that receive the final hidden state."""


@attrs.frozen
class PassResult:
    """Sampled tokens and distributions of a finished pass, each in slot order."""

    tokens: list[int]
    distributions: list[tuple[list[int], list[float]]]


# ------------------------------------------------------- to a model's scheduler
# Its mailbox is unbounded and keeps program order: a guest's pages, passes and barriers are
# understood in the order of its calls. What an instance can have in it is bounded by its limits.


@attrs.frozen(eq=False)
class OpenInstance:
    """An instance may use this model; its age and user decide about memory and names."""

    instance: InstanceId
    user: str
    seed: int


@attrs.frozen(eq=False)
class AllocatePointers(Ask[tuple[Pointer, ...]]):
    """All or nothing; waits in line until there is room (contract R4, R5)."""

    instance: InstanceId
    kind: ResourceKind
    count: int


@attrs.frozen(eq=False)
class FreePointers:
    """Drop handles that the instance holds."""

    instance: InstanceId
    kind: ResourceKind
    pointers: tuple[Pointer, ...]


@attrs.frozen(eq=False)
class ExportPointers(Ask[None]):
    """Register resources under a name of the user (contract R6)."""

    instance: InstanceId
    kind: ResourceKind
    pointers: tuple[Pointer, ...]
    name: str


@attrs.frozen(eq=False)
class ImportPointers(Ask[tuple[Pointer, ...]]):
    """New handles for what was exported; waits until its contents are written."""

    instance: InstanceId
    kind: ResourceKind
    name: str


@attrs.frozen(eq=False)
class ReleaseExport:
    """Drop the entry; users of the pages keep them."""

    instance: InstanceId
    kind: ResourceKind
    name: str


@attrs.frozen(eq=False)
class ListExports(Ask[list[tuple[str, int]]]):
    """Visible names of the user, each with its number of resources."""

    instance: InstanceId
    kind: ResourceKind


@attrs.frozen(eq=False)
class SubmitPass(Ask[PassResult]):
    """Run a pass, in order with its queue and with the data it touches."""

    instance: InstanceId
    queue: QueueId
    priority: Priority
    work: ForwardPass


@attrs.frozen(eq=False)
class Synchronize(Ask[bool]):
    """Answered when all earlier work of the queue is done: False if any of it failed."""

    instance: InstanceId
    queue: QueueId


@attrs.frozen(eq=False)
class EndInstance(Ask[None]):
    """The instance is over; take everything back (contract R10).

    With `drain`, what it submitted still runs and the answer comes when that is done; it fails
    with PassFailed if a pass failed and the guest never looked. Without, passes that have not
    started are dropped and the answer comes at once.
    """

    instance: InstanceId
    drain: bool


@attrs.frozen(eq=False)
class DescribeService(Ask["ServiceStats"]):
    """A snapshot for people, tests and `debug-query`."""


SchedulerMessage: TypeAlias = (
    OpenInstance
    | AllocatePointers
    | FreePointers
    | ExportPointers
    | ImportPointers
    | ReleaseExport
    | ListExports
    | SubmitPass
    | Synchronize
    | EndInstance
    | DescribeService
)


@attrs.frozen
class ServiceStats:
    """What a model's scheduler has done and holds."""

    batches: int
    rows: int
    passes: int
    sampled: int
    decode_batches: int
    """Batches in which no pass had more than one row."""
    decode_rows: int
    busy_seconds: float
    """Time the executor was running a batch."""
    pages: int
    pages_free: int
    pages_peak: int
    """Most pages in use at once."""
    embeddings_free: int
    waiting: int
    """Requests for memory in line."""
    queued: int
    """Passes submitted and not finished."""
    instances: int


@attrs.frozen(eq=False, kw_only=True)
class ModelService:
    """One loaded model to those who use it: its facts, and the way to its scheduler.

    A message counts as activity from here until the scheduler has read it.
    """

    index: int
    info: ModelInfo
    activity: Activity
    _scheduler: trio.MemorySendChannel[SchedulerMessage]

    def tell(self, message: SchedulerMessage) -> None:
        """Send without waiting; a question to an ended scheduler fails."""
        self.activity.start()
        tell(self._scheduler, message)

    async def ask(self, question: Ask[T]) -> T:
        """Send a question that is a SchedulerMessage and wait for the answer."""
        self.tell(question)  # type: ignore[arg-type]  # Ask[T] of the union above
        return await question.reply.wait()

    def close(self) -> None:
        """The scheduler ends when it has read what was sent."""
        self._scheduler.close()


# ------------------------------------------------------------- to an executor


@attrs.frozen(eq=False)
class RunBatch(Ask[BatchResult]):
    """Run one batch; fails with PassFailed when it is lost."""

    batch: Batch


# -------------------------------------------------------------- to the broker


@attrs.frozen(eq=False)
class OpenMailbox:
    """An instance begins and may be written to."""

    instance: InstanceId
    user: str


@attrs.frozen(eq=False)
class CloseMailbox:
    """The instance is over: drop its messages, receives and subscriptions."""

    instance: InstanceId


@attrs.frozen(eq=False)
class SendToInstance(Ask[None]):
    """A message or blob from the client; unknown or ended instances fail it."""

    instance: InstanceId
    content: str | bytes


@attrs.frozen(eq=False)
class NoMoreInput:
    """The client will send nothing more: pending and later receives fail."""

    instance: InstanceId


@attrs.frozen(eq=False)
class Receive(Ask[str]):
    """The next message of the client, in order."""

    instance: InstanceId


@attrs.frozen(eq=False)
class ReceiveBlob(Ask[bytes]):
    """The next blob of the client, in order."""

    instance: InstanceId


@attrs.frozen(eq=False)
class CancelReceive:
    """The guest dropped a receive; what it has got and not taken goes back to the front."""

    instance: InstanceId
    receive: Receive | ReceiveBlob


class Topic(Protocol):
    """The receiving end of a subscription."""

    def put(self, message: str, /) -> None: ...


@attrs.frozen(eq=False)
class Subscribe(Ask[None]):
    """Feed `subscription` with what is broadcast on the topic from now on."""

    instance: InstanceId
    topic: str
    subscription: Topic


@attrs.frozen(eq=False)
class Unsubscribe:
    instance: InstanceId
    topic: str
    subscription: Topic


@attrs.frozen(eq=False)
class Broadcast:
    """Reaches the subscriptions of this moment, of the same user, the sender's included."""

    instance: InstanceId
    topic: str
    message: str


BrokerMessage: TypeAlias = (
    OpenMailbox
    | CloseMailbox
    | SendToInstance
    | NoMoreInput
    | Receive
    | ReceiveBlob
    | CancelReceive
    | Subscribe
    | Unsubscribe
    | Broadcast
)


# --------------------------------------------------------------- to the store


@attrs.frozen(eq=False)
class GetKey(Ask[str | None]):
    user: str
    key: str


@attrs.frozen(eq=False)
class SetKey(Ask[None]):
    user: str
    key: str
    value: str


@attrs.frozen(eq=False)
class DeleteKey(Ask[None]):
    user: str
    key: str


@attrs.frozen(eq=False)
class ListKeys(Ask[list[str]]):
    user: str


StoreMessage: TypeAlias = GetKey | SetKey | DeleteKey | ListKeys


# ---------------------------------------------------------- to the supervisor


@attrs.frozen
class Event:
    """Something a client hears of its instance; `code` as in contract G3."""

    code: EventCode
    text: str


@attrs.frozen
class Output:
    """Bytes the guest wrote to stdout or stderr."""

    stream: str
    data: bytes


@attrs.frozen
class BlobSent:
    """A blob the guest sent."""

    data: bytes


ClientItem: TypeAlias = Event | Output | BlobSent


@attrs.frozen
class Returned:
    """The guest's `run` came to its end; `text` is what it set as its return value."""

    text: str


@attrs.frozen
class Refused:
    """The guest's `run` gave `Err(text)`."""

    text: str


@attrs.frozen(eq=False, kw_only=True)
class LaunchContext:
    """What the supervisor gives to whoever runs the guest."""

    id: InstanceId
    uuid: str
    user: str
    seed: int
    arguments: tuple[str, ...]
    mover: Mover
    outbox: Outbox[ClientItem]


@attrs.frozen(eq=False)
class Launch(Ask["Launched"]):
    """Start an instance of `program` (whatever the engine's launcher understands)."""

    program: Any
    arguments: tuple[str, ...] = ()
    user: str = "local"
    seed: int | None = None
    """None: derived from the engine's seed and the launch number."""


@attrs.frozen(eq=False)
class Launched:
    """A running instance, as its client sees it: `outbox` ends after the terminal event."""

    instance: InstanceId
    uuid: str
    outbox: Outbox[ClientItem]


@attrs.frozen(eq=False)
class Terminate(Ask[None]):
    """End an instance with event ABORTED; answered when it is gone. Unknown ones fail."""

    instance: InstanceId
    reason: str = "terminated by its client"


@attrs.frozen
class InstanceDescription:
    instance: InstanceId
    uuid: str
    program: str
    user: str
    seconds: float
    """Age, on Trio's clock."""


@attrs.frozen(eq=False)
class ListInstances(Ask[list[InstanceDescription]]):
    """The running instances of a user, oldest first; None means of everybody."""

    user: str | None


SupervisorMessage: TypeAlias = Launch | Terminate | ListInstances
