"""To a model's scheduler.

Its mailbox is unbounded and keeps program order: a guest's pages, passes and barriers are
understood in the order of its calls. What an instance can have in it is bounded by its limits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import attrs
import trio

from pie.activity import Activity, Mover
from pie.batch import AdapterCommand, ModelInfo
from pie.errors import PieError
from pie.ids import InstanceId, Pointer, Priority, QueueId, ResourceKind
from pie.mailbox import Ask, tell

from .decoding import CancelDecoding, SubmitDecoding
from .forward import ForwardPass, PassResult

T = TypeVar("T")


@attrs.frozen(eq=False)
class OpenInstance:
    """An instance may use this model; its age and user decide about memory and names."""

    instance: InstanceId
    user: str
    seed: int
    mover: Mover
    """Tells whether and since when the instance is idle."""
    evict: Callable[[PieError], None]
    """Ends the instance with this error as its reason; never blocks."""


@attrs.frozen(eq=False)
class AllocatePointers(Ask[tuple[Pointer, ...]]):
    """All or nothing; waits in line until there is room (contract R4, R5).

    `spare`: no more than so many, at once, of those that nobody will miss (X10).
    """

    instance: InstanceId
    kind: ResourceKind
    count: int
    spare: bool = False


@attrs.frozen(eq=False)
class FreePointers:
    """Drop handles that the instance holds."""

    instance: InstanceId
    kind: ResourceKind
    pointers: tuple[Pointer, ...]


@attrs.frozen(eq=False)
class SharePages(Ask[tuple[Pointer, ...]]):
    """Other handles of KV pages that the instance holds; who writes to one gets a copy."""

    instance: InstanceId
    pointers: tuple[Pointer, ...]


@attrs.frozen(eq=False)
class ExportPointers(Ask[bool]):
    """Register resources under a name of the user (contract R6).

    An existing name fails it, or answers False unless it `must_be_new`.
    """

    instance: InstanceId
    kind: ResourceKind
    pointers: tuple[Pointer, ...]
    name: str
    must_be_new: bool = True


@attrs.frozen(eq=False)
class ImportPointers(Ask[tuple[Pointer, ...] | None]):
    """New handles for what was exported; waits until its contents are written.

    An unknown name fails it, or answers None unless it `must_exist`.
    """

    instance: InstanceId
    kind: ResourceKind
    name: str
    must_exist: bool = True


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


@attrs.define(eq=False)
class SubmitPass(Ask[PassResult]):
    """Run a pass, in order with its queue and with the data it touches."""

    instance: InstanceId
    queue: QueueId
    priority: Priority
    work: ForwardPass


@attrs.frozen(eq=False, kw_only=True)
class RunCommand(Ask[Any]):
    """Do something with slots of the model, in order with its queue and with their users.

    Answered with bytes of an adapter that is downloaded, with float32 vectors [slots, hidden] of
    embeddings that are read, else with nothing of interest.
    """

    instance: InstanceId
    queue: QueueId
    priority: Priority
    kind: ResourceKind
    pointers: tuple[Pointer, ...]
    writes: bool
    """Whether it changes the slots, so that later users wait for it."""
    command: AdapterCommand | None
    """To be given the slot's number; None: read the embedding slots."""


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


@attrs.frozen(eq=False)
class CountPages(Ask[dict[InstanceId, int]]):
    """How many KV pages each instance has handles of."""


SchedulerMessage: TypeAlias = (
    OpenInstance
    | AllocatePointers
    | FreePointers
    | SharePages
    | ExportPointers
    | ImportPointers
    | ReleaseExport
    | ListExports
    | SubmitPass
    | SubmitDecoding
    | CancelDecoding
    | RunCommand
    | Synchronize
    | EndInstance
    | DescribeService
    | CountPages
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
    host_pages: int
    host_pages_free: int
    moved_out: int
    """Pages moved to host memory so far."""
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
