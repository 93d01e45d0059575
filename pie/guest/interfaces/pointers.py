"""The resources of `inferlet:core/common`, held by pointers: pages, embedding and adapter slots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pie.errors import GuestError, LimitExceeded
from pie.guest.host import HostInterface, Wait
from pie.guest.instance import Instance
from pie.ids import Pointer, ResourceKind
from pie.mailbox import Reply
from pie.messages import (
    AllocatePointers,
    ExportPointers,
    FreePointers,
    ImportPointers,
    ListExports,
    ReleaseExport,
)

from .handles import Queue, wait_for

pointers = HostInterface("inferlet:core/common")


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


@pointers.function("allocate-resources", suspends=True)
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


@pointers.function("deallocate-resources")
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


@pointers.function("get-all-exported-resources", suspends=True)
def get_all_exported_resources(instance: Instance, queue: Queue, resource_type: int) -> Wait:
    kind = kind_of(queue, resource_type, "get-all-exported-resources")
    return wait_for(ask_scheduler(queue, ListExports(instance.id, kind)))


@pointers.function("release-exported-resources")
def release_exported_resources(
    instance: Instance, queue: Queue, resource_type: int, name: str
) -> None:
    kind = kind_of(queue, resource_type, "release-exported-resources")
    queue.service.tell(ReleaseExport(instance.id, kind, name))


@pointers.function("export-resources", suspends=True)
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
    instance.check_name(name, call)
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


@pointers.function("import-resources", suspends=True)
def import_resources(instance: Instance, queue: Queue, resource_type: int, name: str) -> Wait:
    kind = kind_of(queue, resource_type, "import-resources")
    hold = holder(instance, queue, kind, "import-resources")
    return wait_for(ask_scheduler(queue, ImportPointers(instance.id, kind, name)), hold)
