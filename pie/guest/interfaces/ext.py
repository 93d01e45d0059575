"""`pie:ext/ext`: what the published interfaces cannot say (contract X10)."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import attrs

from pie.batch import Floats
from pie.errors import GuestError
from pie.guest.host import HostInterface, Wait
from pie.guest.instance import Instance
from pie.ids import Pointer, ResourceKind
from pie.mailbox import Reply
from pie.messages import AllocatePointers, ImportPointers, RunCommand, SharePages

from .decoding import decodings
from .handles import Queue, wait_for
from .pointers import (
    allocation,
    ask_scheduler,
    check_count,
    check_held,
    check_pages,
    export_question,
    holder,
    kind_of,
)
from .tokenize import TokenizerHandle, converted

ext = HostInterface("pie:ext/ext")
ext.include(decodings)


@attrs.define(eq=False)
class EmbeddingResult:
    """Hidden vectors on their way; `get` may be called again."""

    reply: Reply[Floats]


@ext.function("try-import", suspends=True)
def try_import(instance: Instance, queue: Queue, resource_type: int, name: str) -> Wait:
    kind = kind_of(queue, resource_type, "try-import")
    hold = holder(instance, queue, kind, "try-import")
    question = ImportPointers(instance.id, kind, name, must_exist=False)
    return wait_for(
        ask_scheduler(queue, question), lambda found: None if found is None else hold(found)
    )


@ext.function("try-export", suspends=True)
def try_export(
    instance: Instance, queue: Queue, resource_type: int, ptrs: list[Pointer], name: str
) -> Wait:
    question = export_question(
        instance, queue, resource_type, ptrs, name, "try-export", must_be_new=False
    )
    return wait_for(ask_scheduler(queue, question))


@ext.function("share-pages", suspends=True)
def share_pages(instance: Instance, queue: Queue, ptrs: list[Pointer]) -> Wait:
    check_count(instance, len(ptrs), "share-pages")
    check_held(queue.pages, ptrs, "share-pages")
    check_pages(instance, len(queue.pages), len(ptrs), "share-pages")
    hold = holder(instance, queue, ResourceKind.KV_PAGE, "share-pages")
    return wait_for(ask_scheduler(queue, SharePages(instance.id, tuple(ptrs))), hold)


@ext.function("try-allocate", suspends=True)
def try_allocate(instance: Instance, queue: Queue, resource_type: int, count: int) -> Wait:
    kind, limit = kind_of(queue, resource_type, "try-allocate"), instance.limits.max_pages
    if kind is ResourceKind.KV_PAGE and limit is not None:
        count = max(0, min(count, limit - len(queue.pages)))
    return allocation(instance, queue, AllocatePointers(instance.id, kind, count, spare=True))


@ext.function("read-embeddings")
def read_embeddings(instance: Instance, queue: Queue, emb_ptrs: list[Pointer]) -> EmbeddingResult:
    slots = queue.service.info.embedding_slots
    if len(emb_ptrs) > slots:
        raise GuestError(
            f"read-embeddings: {len(emb_ptrs)} slots are more than the {slots} of the model (X10)"
        )
    held = instance.holdings(queue.service, ResourceKind.EMBEDDING)
    check_held(held, emb_ptrs, "read-embeddings")
    message = RunCommand(
        instance=instance.id,
        queue=queue.number,
        priority=queue.priority,
        kind=ResourceKind.EMBEDDING,
        pointers=tuple(emb_ptrs),
        writes=False,
        command=None,
    )
    queue.service.tell(message)
    return EmbeddingResult(message.reply)


@ext.function("[method]embedding-result.pollable")
def embedding_pollable(instance: Instance, result: EmbeddingResult) -> Reply[Floats]:
    return result.reply


@ext.function("[method]embedding-result.get")
def embedding_get(instance: Instance, result: EmbeddingResult) -> list[list[float]] | None:
    if not result.reply.ready():
        return None
    vectors: list[list[float]] = result.reply.take().tolist()
    return vectors


@ext.function("tokenize-plain", suspends=True)
def tokenize_plain(
    instance: Instance, handle: TokenizerHandle, text: str
) -> list[int] | Coroutine[Any, Any, list[int]]:
    return converted(instance, handle.tokenizer.encode_plain, text)
