"""`inferlet:core/message`: talking to the client and to other instances (contract X4, X5)."""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

import attrs

from pie.errors import LimitExceeded
from pie.guest.host import HostInterface
from pie.guest.instance import Instance
from pie.ids import EventCode
from pie.mailbox import tell
from pie.messages import (
    BlobSent,
    Broadcast,
    CancelReceive,
    Event,
    Receive,
    ReceiveBlob,
    Subscribe,
    Unsubscribe,
)
from pie.signals import Signal

from .handles import Blob

message = HostInterface("inferlet:core/message")

Q = TypeVar("Q", Receive, ReceiveBlob)

KEPT = 64
"""Newest messages a subscription keeps (contract X4)."""


@attrs.define(eq=False)
class _Receiving(Generic[Q]):
    """A pending or finished receive; dropping it pending loses nothing."""

    instance: Instance
    question: Q
    taken: bool = False

    def close(self) -> None:
        if not self.taken:
            tell(self.instance.broker, CancelReceive(self.instance.id, self.question))


@attrs.define(eq=False)
class ReceiveResult(_Receiving[Receive]):
    """Of a message."""


@attrs.define(eq=False)
class BlobResult(_Receiving[ReceiveBlob]):
    """Of a blob, or a blob that a call produces; taken once."""

    @property
    def reply(self) -> Signal:
        return self.question.reply

    def get(self) -> Blob | None:
        if self.taken or not self.question.reply.ready():
            return None
        self.taken = True
        return Blob(self.question.reply.take())


@attrs.define(eq=False)
class Subscription:
    """What was broadcast on a topic and not read yet: the newest messages, and how many not."""

    instance: Instance
    topic: str
    arrived: Signal = attrs.field(factory=Signal)
    dropped: int = 0
    open: bool = True
    _messages: deque[str] = attrs.field(factory=deque)

    def put(self, text: str) -> None:
        if not self.open:
            return  # on its way when the guest unsubscribed
        if len(self._messages) == KEPT:
            self._messages.popleft()
            self.dropped += 1
        self._messages.append(text)
        self.arrived.set()

    def get(self) -> str | None:
        if not self._messages:
            return None
        text = self._messages.popleft()
        if not self._messages and self.open:
            self.arrived.clear()
        return text

    def close(self) -> None:
        """End the subscription: its pollable is ready from now on and `get` gives none (X5)."""
        if self.open:
            self.open = False
            self._messages.clear()
            self.instance.subscriptions -= 1
            tell(self.instance.broker, Unsubscribe(self.instance.id, self.topic, self))
            self.arrived.set()


def _check_size(instance: Instance, text: str, call: str) -> None:
    size, limit = len(text.encode()), instance.limits.max_message_bytes
    if size > limit:
        raise LimitExceeded(f"{call}: {size} bytes, the limit is {limit}")


@message.function("send", suspends=True)
def send(instance: Instance, text: str) -> Coroutine[Any, Any, None] | None:
    _check_size(instance, text, "send")
    return instance.deliver(Event(EventCode.MESSAGE, text))


@message.function("send-blob", suspends=True)
def send_blob(instance: Instance, blob: Blob) -> Coroutine[Any, Any, None] | None:
    blob.close()
    return instance.deliver(BlobSent(blob.data))


@message.function("receive")
def receive(instance: Instance) -> ReceiveResult:
    question = Receive(instance.id)
    tell(instance.broker, question)
    return ReceiveResult(instance, question)


@message.function("[method]receive-result.pollable")
def receive_pollable(instance: Instance, result: ReceiveResult) -> Signal:
    return result.question.reply


@message.function("[method]receive-result.get")
def receive_get(instance: Instance, result: ReceiveResult) -> str | None:
    if not result.question.reply.ready():
        return None
    result.taken = True
    return result.question.reply.take()


@message.function("receive-blob")
def receive_blob(instance: Instance) -> BlobResult:
    question = ReceiveBlob(instance.id)
    tell(instance.broker, question)
    return BlobResult(instance, question)


@message.function("broadcast")
def broadcast(instance: Instance, topic: str, text: str) -> None:
    instance.check_name(topic, "broadcast")
    _check_size(instance, text, "broadcast")
    tell(instance.broker, Broadcast(instance.id, topic, text))


@message.function("subscribe")
def subscribe(instance: Instance, topic: str) -> Subscription:
    instance.check_name(topic, "subscribe")
    limit = instance.limits.max_subscriptions
    if instance.subscriptions >= limit:
        raise LimitExceeded(f"subscribe: {limit} subscriptions are open, the limit")
    instance.subscriptions += 1
    subscription = Subscription(instance, topic)
    # Nobody can tell whether the broker has read this: all that is broadcast passes it later.
    tell(instance.broker, Subscribe(instance.id, topic, subscription))
    return subscription


@message.function("[method]subscription.pollable")
def subscription_pollable(instance: Instance, subscription: Subscription) -> Signal:
    return subscription.arrived


@message.function("[method]subscription.get")
def subscription_get(instance: Instance, subscription: Subscription) -> str | None:
    return subscription.get()


@message.function("[method]subscription.unsubscribe")
def unsubscribe(instance: Instance, subscription: Subscription) -> None:
    subscription.close()
