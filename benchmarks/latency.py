"""How late the loop runs a task: what everybody else in the process feels."""

from __future__ import annotations

import time
from collections.abc import Sequence

import attrs
import trio

EVERY = 0.005
"""Seconds between two looks: seldom enough to cost less than a hundredth of a core."""


@attrs.frozen
class Late:
    """One look at the loop."""

    due: float
    """On `perf_counter`."""
    seconds: float
    """How late the task ran."""
    own: float
    """The same, times the share of a core that the loop's thread got meanwhile: how late it would
    have been on a machine without other work. Right while the loop has no pause."""


async def watch_latency(samples: list[Late]) -> None:
    """Append a look every few milliseconds for ever."""
    while True:
        began, used = time.perf_counter(), time.thread_time()
        await trio.sleep(EVERY)
        now = time.perf_counter()
        share = min(1.0, (time.thread_time() - used) / (now - began))
        late = now - began - EVERY
        samples.append(Late(began + EVERY, late, late * share))


def milliseconds(name: str, late: Sequence[float]) -> dict[str, float]:
    """The distribution of latencies in seconds, as figures whose names begin with `name`."""
    if not late:
        return {}
    ordered = sorted(late)
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    last = len(ordered) - 1
    return {
        f"{name}_ms_{share}": ordered[min(last, int(len(ordered) * part))] * 1e3
        for share, part in shares.items()
    }
