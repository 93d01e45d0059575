"""Watching an engine from outside: what a trace or a simulation is told.

An engine without an observer pays one test for None at each of these places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from pie.batch import Batch, ModelInfo
from pie.errors import PieError
from pie.ids import InstanceId
from pie.messages import Event, LaunchContext, SchedulerMessage

from .decodings import PendingDecoding
from .passes import Pending
from .planner import Chunk

if TYPE_CHECKING:
    from .ledger import Ledger


class Observer(Protocol):
    """Told what happens in one model's scheduler, in order, as it happens.

    The methods run on the loop inside the scheduler: they must not wait, and change nothing. What
    they raise stops the engine, like any other bug in an actor.
    """

    def opened(self, ledger: Ledger, /) -> None:
        """The scheduler begins. Its page table and plan are reached through `ledger`."""

    def took(self, message: SchedulerMessage, /) -> None:
        """A message has been handled, or has been answered with a caller's mistake."""

    def submitted(self, work: Pending, /) -> None:
        """A pass or command is in its queue, and knows what it waits for."""

    def began(self, step: Sequence[Chunk], batch: Batch, /) -> None:
        """A step goes to the executor."""

    def ended(self, step: Sequence[Chunk], lost: PieError | None, /) -> None:
        """It came back, or was lost; no pass of it has been answered yet."""

    def followed(self, step: Sequence[Chunk], batch: Batch, /) -> None:
        """The device has gone on by itself, after one that `ended`, with the same passes."""

    def proceeded(self, work: PendingDecoding, /) -> None:
        """A step of a decoding is over, and it has become its next pass."""

    def finished(self, work: Pending, /) -> None:
        """A pass or command has been answered, with `work.error` if there is one."""

    def moved_out(self, numbers: Sequence[int], /) -> None:
        """The pages that had these numbers are in host memory."""

    def moved_back(self, numbers: Sequence[int], /) -> None:
        """Pages have come back from host memory, at these numbers."""


class GuestObserver(Protocol):
    """Told what becomes of an engine's instances; the same rules."""

    def launched(self, context: LaunchContext, program: str, /) -> None:
        """There is an instance of a program of this name; it counts as moving from here."""

    def moving(self, instance: InstanceId, moves: bool, /) -> None:
        """What a guest waits for is ready, or it has begun to wait or ended (`pie.activity`)."""

    def gone(self, instance: InstanceId, last: Event, /) -> None:
        """An instance has ended and all it held is taken back; `last` is its terminal event."""


Observe: TypeAlias = Callable[[ModelInfo], Observer | None]
"""Makes the observer of each model of an engine, or none."""
