"""`wasi:clocks`: Trio's clock, so that guests live in virtual time when the engine does."""

from __future__ import annotations

import time

import trio

from pie.guest.host import HostInterface
from pie.guest.instance import Instance
from pie.signals import Deadline

_SECOND = 1_000_000_000
_SIMULATED_EPOCH = 1_767_225_600 * _SECOND
"""2026-01-01T00:00:00Z: where the wall clock of every simulation begins."""


def interfaces(*, simulated: bool) -> list[HostInterface]:
    """A simulated wall clock shows the same time in every run."""
    monotonic = HostInterface("wasi:clocks/monotonic-clock")
    monotonic.function("now")(_now)
    monotonic.function("resolution")(lambda instance: 1)
    monotonic.function("subscribe-instant")(_subscribe_instant)
    monotonic.function("subscribe-duration")(_subscribe_duration)
    wall = HostInterface("wasi:clocks/wall-clock")
    wall.function("now")(_simulated_date if simulated else _date)
    wall.function("resolution")(lambda instance: _split(1))
    return [monotonic, wall]


def _now(_: Instance | None) -> int:
    # Rounded, so that a guest woken at a deadline does not see the instant before it.
    return round(trio.current_time() * _SECOND)


def _subscribe_instant(instance: Instance, when: int) -> Deadline:
    return Deadline(when / _SECOND)


def _subscribe_duration(instance: Instance, duration: int) -> Deadline:
    return Deadline(trio.current_time() + duration / _SECOND)


def _date(instance: Instance) -> dict[str, int]:
    return _split(time.time_ns())


def _simulated_date(instance: Instance) -> dict[str, int]:
    return _split(_SIMULATED_EPOCH + _now(None))


def _split(nanoseconds: int) -> dict[str, int]:
    seconds, rest = divmod(nanoseconds, _SECOND)
    return {"seconds": seconds, "nanoseconds": rest}
