"""To the broker."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import attrs

from pie.ids import InstanceId
from pie.mailbox import Ask


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
class Subscribe:
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
