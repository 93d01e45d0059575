"""`inferlet:core/common`: models, queues, blobs, and the resources a guest holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import attrs

from pie.errors import GuestError, LimitExceeded
from pie.guest.host import HostInterface, Wait
from pie.guest.instance import Instance
from pie.ids import Pointer, Priority, QueueId, ResourceKind
from pie.mailbox import Reply
from pie.messages import (
    AllocatePointers,
    DescribeService,
    ExportPointers,
    FreePointers,
    ImportPointers,
    ListExports,
    ModelService,
    ReleaseExport,
    ServiceStats,
    Synchronize,
)

common = HostInterface("inferlet:core/common")

T = TypeVar("T")
A = TypeVar("A")

PRIORITIES = {"low": Priority.LOW, "normal": Priority.NORMAL, "high": Priority.HIGH}


@attrs.frozen(eq=False)
class Blob:
    """Bytes that a guest passes around."""

    data: bytes
    maker: Instance | None = None
    """Whose limit it counts against, while it has it."""

    def close(self) -> None:
        if self.maker is not None:
            self.maker.blob_bytes -= len(self.data)


@attrs.frozen(eq=False)
class Model:
    """A guest's handle of a loaded model."""

    service: ModelService


@attrs.define(eq=False)
class Queue:
    """A guest's command queue of one model."""

    instance: Instance
    service: ModelService
    number: QueueId
    pages: set[Pointer]
    """The KV pages that the guest holds in the model."""
    priority: Priority = Priority.NORMAL


@attrs.define(eq=False)
class ReplyResult(Generic[A, T]):
    """A result resource: its pollable is the reply; `get` may be called again (contract X5)."""

    reply: Reply[A]
    convert: Callable[[A], T]

    def get(self) -> T | None:
        """None while pending; raises what the answer failed with."""
        return self.convert(self.reply.take()) if self.reply.ready() else None


@attrs.define(eq=False)
class SynchronizationResult(ReplyResult[bool, bool]):
    """Of `synchronize`."""


@attrs.define(eq=False)
class DebugQueryResult(ReplyResult[Any, str]):
    """Of a `debug-query`."""


def wait_for(reply: Reply[T], convert: Callable[[T], Any] | None = None) -> Wait:
    """Suspend the guest until the reply is there; its value, converted, is the call's."""
    return Wait((reply,), lambda: convert(reply.take()) if convert else reply.take())


def answered(value: T) -> Reply[T]:
    """A reply that is there already."""
    reply = Reply[T]()
    reply.answer(value)
    return reply


# ------------------------------------------------------------------------- blob


@common.function("[constructor]blob")
def new_blob(instance: Instance, init: bytes) -> Blob:
    limit, total = instance.limits.max_blob_bytes, instance.blob_bytes + len(init)
    if total > limit:
        raise LimitExceeded(f"blob: {total} bytes in all, the limit is {limit}")
    instance.blob_bytes = total
    return Blob(init, instance)


@common.function("[method]blob.read")
def read_blob(instance: Instance, blob: Blob, offset: int, n: int) -> bytes:
    return blob.data[offset : offset + n]


@common.function("[method]blob.size")
def size_of_blob(instance: Instance, blob: Blob) -> int:
    return len(blob.data)


@common.function("[method]blob-result.pollable")
@common.function("[method]synchronization-result.pollable")
@common.function("[method]debug-query-result.pollable")
def pollable_of_result(instance: Instance, result: ReplyResult[Any, Any]) -> Reply[Any]:
    return result.reply


@common.function("[method]blob-result.get")
@common.function("[method]synchronization-result.get")
@common.function("[method]debug-query-result.get")
def get_result(instance: Instance, result: ReplyResult[Any, T]) -> T | None:
    return result.get()


# ------------------------------------------------------------------------ model


@common.function("[method]model.get-name")
def model_name(instance: Instance, model: Model) -> str:
    return model.service.info.name


@common.function("[method]model.get-traits")
def model_traits(instance: Instance, model: Model) -> list[str]:
    return list(model.service.info.traits)


@common.function("[method]model.get-description")
def model_description(instance: Instance, model: Model) -> str:
    return model.service.info.description


@common.function("[method]model.get-prompt-template")
def model_prompt_template(instance: Instance, model: Model) -> str:
    return model.service.info.prompt_template


@common.function("[method]model.get-stop-tokens")
def model_stop_tokens(instance: Instance, model: Model) -> list[str]:
    return list(model.service.info.stop_tokens)


@common.function("[method]model.get-service-id")
@common.function("[method]queue.get-service-id")
def service_id(instance: Instance, owner: Model | Queue) -> int:
    return owner.service.index


@common.function("[method]model.get-kv-page-size")
def kv_page_size(instance: Instance, model: Model) -> int:
    return model.service.info.page_size


@common.function("[method]model.create-queue")
def create_queue(instance: Instance, model: Model) -> Queue:
    number, limit = instance.next_queue(), instance.limits.max_queues
    if number >= limit:
        raise LimitExceeded(f"create-queue: {limit} queues were made, the limit (max_queues)")
    instance.mover.uses(model.service.activity)
    pages = instance.holdings(model.service, ResourceKind.KV_PAGE)
    return Queue(instance, model.service, number, pages)


# ------------------------------------------------------------------------ queue


@common.function("[method]queue.synchronize")
def synchronize(instance: Instance, queue: Queue) -> SynchronizationResult:
    question = Synchronize(instance.id, queue.number)
    queue.service.tell(question)
    return SynchronizationResult(question.reply, bool)


@common.function("[method]queue.set-priority")
def set_priority(instance: Instance, queue: Queue, priority: str) -> None:
    queue.priority = PRIORITIES[priority]


@common.function("[method]queue.debug-query")
def debug_query(instance: Instance, queue: Queue, query: str) -> DebugQueryResult:
    if query == "ping":
        return DebugQueryResult(answered("pong"), str)
    if query == "stats":
        question = DescribeService()
        queue.service.tell(question)
        return DebugQueryResult(question.reply, stats_json)
    return DebugQueryResult(answered(f"unknown query {query!r}; known are: ping, stats"), str)


def stats_json(stats: ServiceStats) -> str:
    return json.dumps(attrs.asdict(stats))


# -------------------------------------------------------------------- resources


def kind_of(queue: Queue, resource_type: int, call: str) -> ResourceKind:
    """The resource kind behind a `resource-type` number that the model has."""
    kinds = {0: "KV pages", 1: "embedding slots"}
    if queue.service.info.adapters is not None:
        kinds[2] = "adapter slots"
    if resource_type not in kinds:
        known = ", ".join(f"{number} ({name})" for number, name in kinds.items())
        raise GuestError(
            f"{call}: resource type {resource_type} is not one of model "
            f"{queue.service.info.name!r}, which has {known}"
        )
    return ResourceKind(resource_type)


def check_held(held: set[Pointer], pointers: list[Pointer], call: str) -> None:
    """Trap naming the first pointer that the guest does not hold (contract R1, R2)."""
    if not held.issuperset(pointers):
        unknown = next(p for p in pointers if p not in held)
        raise GuestError(f"{call}: pointer {unknown} is not held by this instance (R1)")


def check_name(instance: Instance, name: str, call: str) -> None:
    """Names, topics and keys are kept by the engine, so their size is limited."""
    size, limit = len(name.encode()), instance.limits.max_key_bytes
    if size > limit:
        raise LimitExceeded(f"{call}: a name of {size} bytes, the limit is {limit}")


def check_count(instance: Instance, count: int, call: str) -> None:
    limit = instance.limits.max_handles
    if count > limit:
        raise LimitExceeded(f"{call}: {count} pointers, the limit is {limit}")


def check_pages(instance: Instance, held: int, more: int, call: str) -> None:
    limit = instance.limits.max_pages
    if limit is not None and held + more > limit:
        raise LimitExceeded(
            f"{call}: {held} KV pages are held and {more} more asked, "
            f"the limit is {limit} (max_pages)"
        )


def ask_scheduler(queue: Queue, question: Any) -> Reply[Any]:
    queue.service.tell(question)
    reply: Reply[Any] = question.reply
    return reply


@common.function("allocate-resources", suspends=True)
def allocate_resources(
    instance: Instance, queue: Queue, resource_type: int, count: int
) -> list[Pointer] | Wait:
    kind = kind_of(queue, resource_type, "allocate-resources")
    if count == 0:
        return []
    if kind is ResourceKind.KV_PAGE:
        held = instance.holdings(queue.service, kind)
        check_pages(instance, len(held), count, "allocate-resources")
    return allocation(instance, queue, AllocatePointers(instance.id, kind, count))


def allocation(instance: Instance, queue: Queue, question: AllocatePointers) -> Wait:
    """Ask, suspend the guest, and note that it holds what it is given."""
    held = instance.holdings(queue.service, question.kind)

    def hold(pointers: tuple[Pointer, ...]) -> list[Pointer]:
        held.update(pointers)
        return list(pointers)

    return wait_for(ask_scheduler(queue, question), hold)


@common.function("deallocate-resources")
def deallocate_resources(
    instance: Instance, queue: Queue, resource_type: int, ptrs: list[Pointer]
) -> None:
    kind = kind_of(queue, resource_type, "deallocate-resources")
    held = instance.holdings(queue.service, kind)
    check_held(held, ptrs, "deallocate-resources")
    if len(set(ptrs)) != len(ptrs):
        twice = next(p for p in ptrs if ptrs.count(p) > 1)
        raise GuestError(f"deallocate-resources: pointer {twice} is listed twice (R2)")
    held.difference_update(ptrs)
    queue.service.tell(FreePointers(instance.id, kind, tuple(ptrs)))


@common.function("get-all-exported-resources", suspends=True)
def get_all_exported_resources(instance: Instance, queue: Queue, resource_type: int) -> Wait:
    kind = kind_of(queue, resource_type, "get-all-exported-resources")
    return wait_for(ask_scheduler(queue, ListExports(instance.id, kind)))


@common.function("release-exported-resources")
def release_exported_resources(
    instance: Instance, queue: Queue, resource_type: int, name: str
) -> None:
    kind = kind_of(queue, resource_type, "release-exported-resources")
    queue.service.tell(ReleaseExport(instance.id, kind, name))


@common.function("export-resources", suspends=True)
def export_resources(
    instance: Instance, queue: Queue, resource_type: int, ptrs: list[Pointer], name: str
) -> Wait:
    question = export_question(instance, queue, resource_type, ptrs, name, "export-resources")
    return wait_for(ask_scheduler(queue, question), lambda _: None)


def export_question(
    instance: Instance,
    queue: Queue,
    resource_type: int,
    ptrs: list[Pointer],
    name: str,
    call: str,
    *,
    must_be_new: bool = True,
) -> ExportPointers:
    """What an export asks of the scheduler; `GuestError` for what the guest may not export."""
    kind = kind_of(queue, resource_type, call)
    check_name(instance, name, call)
    check_count(instance, len(ptrs), call)
    check_held(instance.holdings(queue.service, kind), ptrs, call)
    return ExportPointers(instance.id, kind, tuple(ptrs), name, must_be_new=must_be_new)


def holder(
    instance: Instance, queue: Queue, kind: ResourceKind, call: str
) -> Callable[[tuple[Pointer, ...]], list[Pointer]]:
    """Notes that the guest holds the pointers it is given."""
    held = instance.holdings(queue.service, kind)

    def hold(pointers: tuple[Pointer, ...]) -> list[Pointer]:
        held.update(pointers)
        check_count(instance, len(held), call)
        return list(pointers)

    return hold


@common.function("import-resources", suspends=True)
def import_resources(instance: Instance, queue: Queue, resource_type: int, name: str) -> Wait:
    kind = kind_of(queue, resource_type, "import-resources")
    hold = holder(instance, queue, kind, "import-resources")
    return wait_for(ask_scheduler(queue, ImportPointers(instance.id, kind, name)), hold)
