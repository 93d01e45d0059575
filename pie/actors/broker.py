"""Messages between clients and instances, and the topics instances share (contract X3, X4)."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from typing import Any, assert_never
from weakref import WeakKeyDictionary

import attrs
import trio

from pie.errors import Closed, PieError, UsageError
from pie.ids import InstanceId
from pie.mailbox import Ask, answering, draining, receive_burst
from pie.messages import (
    Broadcast,
    BrokerMessage,
    CancelReceive,
    CloseMailbox,
    NoMoreInput,
    OpenMailbox,
    Receive,
    ReceiveBlob,
    SendToInstance,
    Subscribe,
    Topic,
    Unsubscribe,
)
from pie.probes import sometimes

INBOX_BYTES = 64 << 20
"""What a client may have waiting in one instance; more is refused to the client."""


@attrs.define(eq=False)
class Line:
    """Contents of one kind for an instance, and the receives that wait for them, in order."""

    arrived: list[tuple[int, Any]] = attrs.field(factory=list)
    """Heap of contents that nobody has received, by order of arrival."""
    wanted: OrderedDict[Ask[Any], None] = attrs.field(factory=OrderedDict)
    _given: WeakKeyDictionary[Ask[Any], int] = attrs.field(factory=WeakKeyDictionary)
    """Which content each receive got, for as long as the guest has it."""
    _count: int = 0

    def put(self, content: Any) -> bool:
        """Hand a new `content` to the first receive; False if it has to wait for one."""
        self._count += 1
        return self._hand_out(self._count, content)

    def take(self, receive: Ask[Any]) -> Any:
        """Answer `receive` with the first content that has arrived; gives that content."""
        number, content = heapq.heappop(self.arrived)
        self._give(receive, number, content)
        return content

    def put_back(self, receive: Ask[Any]) -> bool:
        """Like `put`, with what a receive got that its guest has dropped, at its old place."""
        sometimes("a dropped receive gives its message back")
        return self._hand_out(self._given.pop(receive), receive.reply.take())

    def fail(self, error: PieError) -> None:
        while self.wanted:
            self.wanted.popitem(last=False)[0].reply.fail(error)

    def _hand_out(self, number: int, content: Any) -> bool:
        if self.wanted:
            self._give(self.wanted.popitem(last=False)[0], number, content)
            return True
        heapq.heappush(self.arrived, (number, content))
        return False

    def _give(self, receive: Ask[Any], number: int, content: Any) -> None:
        self._given[receive] = number
        receive.reply.answer(content)


@attrs.define(eq=False)
class Inbox:
    """What a client has for an instance."""

    user: str
    texts: Line = attrs.field(factory=Line)
    blobs: Line = attrs.field(factory=Line)
    waiting_bytes: int = 0
    ended: bool = False
    """The client will send nothing more."""


@attrs.define(eq=False)
class Broker:
    """Sole owner of inboxes and topics. Never waits, so anybody may ask it anything."""

    _mailbox: trio.MemoryReceiveChannel[BrokerMessage]
    _inboxes: dict[InstanceId, Inbox] = attrs.field(factory=dict)
    _topics: dict[tuple[str, str], list[tuple[InstanceId, Topic]]] = attrs.field(factory=dict)

    async def run(self) -> None:
        with draining(self._mailbox):
            while burst := await receive_burst(self._mailbox):
                for message in burst:
                    with answering(message):
                        self._handle(message)

    def _handle(self, message: BrokerMessage) -> None:
        match message:
            case OpenMailbox(instance, user):
                self._inboxes[instance] = Inbox(user)
            case CloseMailbox(instance):
                self._close(instance)
            case SendToInstance():
                self._deliver(message)
            case NoMoreInput(instance):
                self._end_input(instance)
            case Receive(instance):
                self._receive(self._inboxes[instance], self._inboxes[instance].texts, message)
            case ReceiveBlob(instance):
                self._receive(self._inboxes[instance], self._inboxes[instance].blobs, message)
            case CancelReceive(instance, receive):
                self._cancel(instance, receive)
            case Subscribe(instance, topic, subscription):
                key = self._inboxes[instance].user, topic
                self._topics.setdefault(key, []).append((instance, subscription))
            case Unsubscribe(instance, topic, subscription):
                self._unsubscribe(instance, topic, subscription)
            case Broadcast(instance, topic, text):
                for _, subscription in self._topics.get((self._inboxes[instance].user, topic), ()):
                    subscription.put(text)
            case _:
                assert_never(message)

    def _deliver(self, message: SendToInstance) -> None:
        inbox = self._inboxes.get(message.instance)
        if inbox is None:
            raise UsageError(f"instance {message.instance} is not running")
        content, size = message.content, _size(message.content)
        if inbox.waiting_bytes + size > INBOX_BYTES:
            raise UsageError(
                f"instance {message.instance} has {inbox.waiting_bytes} bytes of messages it has "
                f"not received; {size} more would pass the limit of {INBOX_BYTES}"
            )
        line = inbox.texts if isinstance(content, str) else inbox.blobs
        if not line.put(content):
            inbox.waiting_bytes += size
        message.reply.answer(None)

    def _receive(self, inbox: Inbox, line: Line, message: Ask[Any]) -> None:
        if line.arrived:
            inbox.waiting_bytes -= _size(line.take(message))
        elif inbox.ended:
            raise Closed("no client will send")
        else:
            line.wanted[message] = None

    def _cancel(self, instance: InstanceId, receive: Receive | ReceiveBlob) -> None:
        inbox = self._inboxes.get(instance)
        if inbox is None:
            return
        line = inbox.texts if isinstance(receive, Receive) else inbox.blobs
        if receive in line.wanted:
            del line.wanted[receive]
            receive.reply.fail(Closed("the receive was dropped"))
        elif receive.reply.error is None and not line.put_back(receive):
            inbox.waiting_bytes += _size(receive.reply.take())

    def _end_input(self, instance: InstanceId) -> None:
        inbox = self._inboxes.get(instance)
        if inbox is not None:
            inbox.ended = True
            for line in (inbox.texts, inbox.blobs):
                line.fail(Closed("no client will send"))

    def _close(self, instance: InstanceId) -> None:
        inbox = self._inboxes.pop(instance)
        for line in (inbox.texts, inbox.blobs):
            line.fail(Closed(f"instance {instance} has ended"))
        for key, entries in list(self._topics.items()):
            entries[:] = [entry for entry in entries if entry[0] != instance]
            if not entries:
                del self._topics[key]

    def _unsubscribe(self, instance: InstanceId, topic: str, subscription: Topic) -> None:
        inbox = self._inboxes.get(instance)
        if inbox is None:
            return
        entries = self._topics.get((inbox.user, topic), [])
        entries[:] = [entry for entry in entries if entry[1] is not subscription]
        if not entries:
            self._topics.pop((inbox.user, topic), None)


def _size(content: str | bytes) -> int:
    return len(content.encode() if isinstance(content, str) else content)
