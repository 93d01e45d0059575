"""The instances that clients know: whose they are, who reads them, what is kept of their end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum

import attrs
import trio

from pie.errors import UsageError
from pie.ids import InstanceId
from pie.messages import ClientItem, Launched
from pie.outbox import Dropped, Outbox
from pie.signals import wait_any

from .config import ServerConfig
from .counters import ServerCounters
from .names import INTERNAL
from .output import Frames

_SHOWN = 1000
"""Characters of its arguments in a listing."""


class Status(StrEnum):
    """As clients see it."""

    ATTACHED = "Attached"
    DETACHED = "Detached"
    FINISHED = "Finished"
    """It has ended, and no client has read how."""


@attrs.define(eq=False, kw_only=True)
class Hosted:
    """One instance, from its launch until its client has heard of its end."""

    instance: InstanceId
    uuid: str
    user: str
    program: str
    arguments: tuple[str, ...]
    """For listings: of many or long ones the beginning."""
    outbox: Outbox[ClientItem]
    frames: Frames
    launched_at: float
    """On Trio's clock."""
    attached: bool = False
    _forgetting: trio.CancelScope | None = None

    @property
    def status(self) -> Status:
        if self.attached:
            return Status.ATTACHED
        return Status.FINISHED if self.outbox.ended.ready() else Status.DETACHED


class Instances:
    """All instances of a server; those without a client are kept for a while after their end."""

    def __init__(
        self, config: ServerConfig, counters: ServerCounters, nursery: trio.Nursery
    ) -> None:
        self._config = config
        self._counters = counters
        self._nursery = nursery
        self._hosted: dict[str, Hosted] = {}
        self._ended: defaultdict[str, dict[str, Hosted]] = defaultdict(dict)
        """Of each user, those that have ended and wait for a client, in the order of their ends."""

    def __len__(self) -> int:
        return len(self._hosted)

    def add(
        self, launched: Launched, *, user: str, program: str, arguments: Sequence[str]
    ) -> Hosted:
        """A new instance; nobody reads it yet, so its output is only kept."""
        hosted = Hosted(
            instance=launched.instance,
            uuid=launched.uuid,
            user=user,
            program=program,
            arguments=_beginning(arguments),
            outbox=launched.outbox,
            frames=Frames(launched.uuid, self._config.blob_end_chunk),
            launched_at=trio.current_time(),
        )
        self._hosted[hosted.uuid] = hosted
        self._leave(hosted)
        return hosted

    def find(self, user: str, uuid: str) -> Hosted:
        """UsageError for one that is not there, or that belongs to somebody else."""
        hosted = self._hosted.get(uuid)
        if hosted is None or user not in (hosted.user, INTERNAL):
            raise UsageError(f"Instance not found: {uuid[:64]}")
        return hosted

    def of(self, user: str | None = None) -> list[Hosted]:
        """Those of a user, or all; oldest first."""
        return [h for h in self._hosted.values() if user in (None, h.user)]

    @contextmanager
    def attach(self, hosted: Hosted) -> Iterator[Dropped]:
        """Read the instance's outbox for the duration; gives what had been dropped before.

        UsageError if somebody else does already. Afterwards it is forgotten if its end was read,
        else detached.
        """
        if hosted.attached:
            raise UsageError(f"Instance already attached: {hosted.uuid}")
        self._keep_no_longer(hosted)
        hosted.attached = True
        dropped = hosted.outbox.attach()
        self._counters.dropped_bytes += dropped.bytes
        try:
            yield dropped
        finally:
            hosted.attached = False
            if hosted.outbox.exhausted:
                self.forget(hosted)
            else:
                self._leave(hosted)

    def forget(self, hosted: Hosted) -> None:
        """Nobody will ask for it any more."""
        self._hosted.pop(hosted.uuid, None)
        self._keep_no_longer(hosted)

    def _leave(self, hosted: Hosted) -> None:
        hosted.outbox.detach(self._config.detached_bytes)
        hosted._forgetting = trio.CancelScope()
        self._nursery.start_soon(self._forget_in_time, hosted, hosted._forgetting)

    async def _forget_in_time(self, hosted: Hosted, scope: trio.CancelScope) -> None:
        """Wait for the end of a detached instance, and then for a client that wants to know it."""
        with scope:
            await wait_any((hosted.outbox.ended,))
            if scope.cancel_called:  # forgotten or attached since it was woken
                return
            self._keep(hosted)
            await trio.sleep(self._config.kept_seconds)
            self.forget(hosted)

    def _keep(self, hosted: Hosted) -> None:
        """An ended one, and forget the first of its user's if there are too many."""
        ended = self._ended[hosted.user]
        ended[hosted.uuid] = hosted
        if len(ended) > self._config.quotas.kept_instances:
            self.forget(next(iter(ended.values())))

    def _keep_no_longer(self, hosted: Hosted) -> None:
        if hosted._forgetting is not None:
            hosted._forgetting.cancel()
            hosted._forgetting = None
        ended = self._ended[hosted.user]
        ended.pop(hosted.uuid, None)
        if not ended:
            del self._ended[hosted.user]


def _beginning(arguments: Sequence[str]) -> tuple[str, ...]:
    """At most a few hundred characters, with a note of what is missing."""
    shown: list[str] = []
    room = _SHOWN
    for argument in arguments:
        if len(argument) > room or len(shown) == _SHOWN:
            left = len(arguments) - len(shown)
            return (*shown, f"{argument[:room]}... ({left} of {len(arguments)} arguments cut)")
        shown.append(argument)
        room -= len(argument)
    return tuple(shown)
