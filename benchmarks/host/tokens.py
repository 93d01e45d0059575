"""Processor time per token in the steady state, and what starting and ending the guests takes."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import attrs
import trio

from benchmarks.latency import Late, milliseconds, watch_latency

from .guests import PAGE_SIZE, Crowd, crowd
from .instant import Window, expected_text
from .machine import Collections, Row, Usage, collector_policy

TOKENS = {1: 4000, 100: 300, 1000: 50, 10_000: 12}
"""Tokens of each guest, by the number of guests: some seconds in all."""
QUICK = {1: 600, 100: 60, 1000: 12, 10_000: 8}


@attrs.frozen
class Watch:
    """What else is to be started and stopped with the steady state."""

    begin: Callable[[], None]
    end: Callable[[], None]


async def measure(
    kind: str, guests: int, *, quick: bool, context: int = 1, watch: Watch | None = None
) -> Row:
    """`guests` guests of a kind that decode at once, each after `context` tokens."""
    tokens = _tokens(guests, context, quick=quick)
    pages = (guests + 1) * -(-(context + tokens) // PAGE_SIZE)
    async with crowd(kind, guests, pages) as many:
        row = await _decode(many, guests, tokens, context, watch)
        await many.check_nothing_left()
    wanted = expected_text(tokens, context)
    wrong = [text for text in many.texts if text != wanted]
    assert len(many.texts) == guests, f"{guests - len(many.texts)} guests did not finish"
    assert not wrong, f"{len(wrong)} wrong texts, the first {wrong[0]!r}, not {wanted!r}"
    return {"tokens_per_guest": tokens, **row}


def _tokens(guests: int, context: int, *, quick: bool) -> int:
    if context > 1:
        return 30 if quick else 100
    return (QUICK if quick else TOKENS)[guests]


async def _decode(many: Crowd, guests: int, tokens: int, context: int, watch: Watch | None) -> Row:
    samples: list[Late] = []
    collections, over, at_first = Collections(), trio.Event(), Usage.now()
    async with trio.open_nursery() as nursery:
        await many.launch(nursery, guests, tokens=tokens, context=context, wait=2)
        await many.settled()
        launched = Usage.now() - at_first
        window = many.device.window = Window(
            guests=guests, first=context, last=context + tokens - 2
        )
        window.begin, window.end = _callbacks(collections, over, watch)
        async with trio.open_nursery() as watching:
            watching.start_soon(watch_latency, samples)
            await many.go()
            await over.wait()
            watching.cancel_scope.cancel()
    done = Usage.now()
    began, ended = window.bounds
    row = _figures(window, collections)
    inside = [late for late in samples if began.wall <= late.due <= ended.wall]
    row |= milliseconds("latency", [late.seconds for late in inside])
    row |= milliseconds("own_latency", [late.own for late in inside])
    row["launch_us_per_guest"] = launched.process / guests * 1e6
    row["end_us_per_guest"] = (done - ended).process / guests * 1e6
    return row


def _callbacks(
    collections: Collections, over: trio.Event, watch: Watch | None
) -> tuple[Callable[[], None], Callable[[], None]]:
    def begin() -> None:
        collections.__enter__()
        if watch is not None:
            watch.begin()

    def end() -> None:
        if watch is not None:
            watch.end()
        collections.__exit__(None, None, None)
        over.set()

    return begin, end


def _figures(window: Window, collections: Collections) -> Row:
    began, ended = window.bounds
    used, tokens = ended - began, window.tokens
    return {
        "us_per_token": used.process / tokens * 1e6,
        "us_per_token_user": used.user / tokens * 1e6,
        "us_per_token_system": used.system / tokens * 1e6,
        "us_per_token_main_thread": used.main / tokens * 1e6,
        "tokens_per_cpu_second": tokens / used.process,
        "tokens_per_second": tokens / used.wall,
        "core_share": used.main / used.wall,
        "mean_batch": tokens / window.batches,
        "started_share": window.started / window.guests,
        "us_per_batch": used.process / window.batches * 1e6,
        "window_tokens": tokens,
        "window_seconds": used.wall,
        "gc": collector_policy(),
        "gc_share": collections.seconds / used.process,
        "gc_longest_ms": collections.longest * 1e3,
        "gc_runs": collections.runs,
    }


def growth(rows: dict[int, Row]) -> float:
    """How many microseconds per token 1,000 more tokens of context cost: the fitted slope."""
    lengths = sorted(rows)
    slope = statistics.linear_regression(
        lengths, [rows[length]["us_per_token"] for length in lengths]
    ).slope
    return slope * 1000
