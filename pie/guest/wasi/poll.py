"""`wasi:io/poll`: waiting for pollables, which are signals and deadlines (contract X9)."""

from __future__ import annotations

from pie.errors import GuestError
from pie.guest.host import HostInterface, Wait
from pie.guest.instance import Instance
from pie.signals import Pollable

_poll = HostInterface("wasi:io/poll")
INTERFACES = [_poll]


@_poll.function("[method]pollable.ready")
def ready(instance: Instance, pollable: Pollable) -> bool:
    return pollable.ready()


@_poll.function("[method]pollable.block", suspends=True)
def block(instance: Instance, pollable: Pollable) -> Wait | None:
    return None if pollable.ready() else Wait((pollable,))


@_poll.function("poll", suspends=True)
def poll(instance: Instance, pollables: list[Pollable]) -> Wait | list[int]:
    """The indices of all that are ready, once one is; the same pollable may be given twice."""
    if not pollables:
        raise GuestError("poll: the list of pollables is empty (X9)")
    return _ready(pollables) or Wait(pollables, lambda: _ready(pollables))


def _ready(pollables: list[Pollable]) -> list[int]:
    return [index for index, pollable in enumerate(pollables) if pollable.ready()]
