"""`inferlet:core/common`: models, queues, blobs, and the resources a guest holds."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import attrs

from pie.errors import LimitExceeded
from pie.guest.host import HostInterface
from pie.guest.instance import Instance
from pie.ids import Priority, ResourceKind
from pie.mailbox import Reply
from pie.messages import DescribeService, ServiceStats, Synchronize

from .handles import (
    Blob,
    DebugQueryResult,
    Model,
    Queue,
    ReplyResult,
    SynchronizationResult,
    answered,
)
from .pointers import pointers

common = HostInterface("inferlet:core/common")
common.include(pointers)

T = TypeVar("T")

PRIORITIES = {"low": Priority.LOW, "normal": Priority.NORMAL, "high": Priority.HIGH}


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
