"""Which steps the device goes on from by itself, and how many it makes (docs/decisions/0021)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pie.multistep import MultiStep

from .decodings import PendingDecoding
from .passes import PendingPass
from .planner import Chunk

SPAN = 0.5
"""Seconds that the steps of one call are to take at most: a device that hangs is noticed by what
a call takes (`pie.guarded`)."""


def steps_of(step: Sequence[Chunk], most: int, seconds: float) -> int:
    """How many steps the device may make of `step`, which takes so many seconds; 1: the one."""
    if most == 1:
        return 1
    least = max(1, min(most, int(SPAN / seconds) if seconds > 0 else most))
    for chunk in step:
        work = chunk.work
        if not (isinstance(work, PendingDecoding) and work.inputs == 1 and _plain(work)):
            return 1
        least = min(least, work.left)
    return least


def decodings_of(step: Sequence[Chunk]) -> list[PendingDecoding]:
    """The works of a step that goes on by itself, which are nothing else."""
    works = [chunk.work for chunk in step]
    return [work for work in works if isinstance(work, PendingDecoding)]


def _plain(work: PendingPass) -> bool:
    """Whether its input is a token that sees everything."""
    return work.work.masks is None and work.work.inputs[0] >= 0


@contextmanager
def announcing(steps: MultiStep, works: Sequence[PendingDecoding]) -> Iterator[None]:
    """Have the device tell of each of `steps` as soon as a guest looks for its tokens; on the way
    out, whatever the reason, it is to end.
    """
    feeds = [work.token.feed for work in works]
    for feed in feeds:
        feed.on_watch = steps.announce
        if feed.watched:
            steps.announce()
    try:
        yield
    finally:
        steps.halt()
        for feed in feeds:
            feed.on_watch = None
