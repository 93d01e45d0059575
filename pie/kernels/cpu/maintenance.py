"""What a step does before it begins: pages and embedding slots are cleared, then pages copied."""

from __future__ import annotations

from typing import Any

from .jit import compiled, staged
from .plan import floats_at, ints_at, longs_at, plan_at
from .step import arrive


@compiled
def _share(thread: int, threads: int, size: int) -> tuple[int, int]:
    """Where a thread's part of `size` bytes begins, and its whole words of 8."""
    words = size // 8
    first = words * thread // threads
    return 8 * first, words * (thread + 1) // threads - first


@compiled
def _clear(p: Any, thread: int) -> None:
    pages, slots = ints_at(p.cleared_pages, p.cleared), ints_at(p.cleared_slots, p.emptied)
    start, count = _share(thread, p.threads, p.page_bytes)
    for i in range(p.cleared):
        longs_at(p.pages + pages[i] * p.page_bytes + start, count)[:] = 0
    for i in range(thread, p.emptied, p.threads):
        floats_at(p.embeddings + slots[i] * p.hidden * 4, p.hidden)[:] = 0


@compiled
def _copy(p: Any, thread: int) -> None:
    sources, targets = ints_at(p.copy_sources, p.copies), ints_at(p.copy_targets, p.copies)
    start, count = _share(thread, p.threads, p.page_bytes)
    for i in range(p.copies):
        source = longs_at(p.pages + sources[i] * p.page_bytes + start, count)
        target = longs_at(p.pages + targets[i] * p.page_bytes + start, count)
        for j in range(count):
            target[j] = source[j]


@staged
def maintain(thread: int, plan: int, met: int) -> int:
    """Every thread calls it, with the arrivals so far; how many there are then.

    Each does its part of every page, so that one page keeps all of them busy.
    """
    p = plan_at(plan, 1)[0]
    copies = p.copies
    if p.cleared + p.emptied > 0:
        _clear(p, thread)
        met = arrive(p, met)
    if copies > 0:
        _copy(p, thread)
        met = arrive(p, met)
    return met
