"""To the supervisor, and what clients hear of instances."""

from __future__ import annotations

from typing import Any, TypeAlias

import attrs

from pie.activity import Mover
from pie.ids import EventCode, InstanceId
from pie.mailbox import Ask
from pie.outbox import Outbox


@attrs.frozen
class Event:
    """Something a client hears of its instance; `code` as in contract G3."""

    code: EventCode
    text: str

    @property
    def size(self) -> int:
        """Bytes of the text as UTF-8."""
        text = self.text
        return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


@attrs.frozen
class Output:
    """Bytes the guest wrote to stdout or stderr."""

    stream: str
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)


@attrs.frozen
class BlobSent:
    """A blob the guest sent."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)


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
