"""What a guest has handles of: models, queues, blobs, and results that are on their way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import attrs

from pie.guest.host import Wait
from pie.guest.instance import Instance
from pie.ids import Pointer, Priority, QueueId
from pie.mailbox import Reply
from pie.messages import ModelService

T = TypeVar("T")
A = TypeVar("A")


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
