"""Processor time, the collector's share of it, and units of this machine's speed."""

from __future__ import annotations

import ctypes
import gc
import math
import resource
import time
from types import TracebackType
from typing import Any

import attrs
import trio

from pie.mailbox import Ask, ask

Row = dict[str, Any]
"""The figures of one case, by name with the unit in it."""


@attrs.frozen
class Usage:
    """Clocks at one moment; the difference of two says what happened between."""

    wall: float
    process: float
    user: float
    system: float
    main: float
    """Processor time of the calling thread, which is to be the loop's."""

    @classmethod
    def now(cls) -> Usage:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return cls(
            time.perf_counter(),
            time.process_time(),
            used.ru_utime,
            used.ru_stime,
            time.thread_time(),
        )

    def __sub__(self, earlier: Usage) -> Usage:
        return Usage(
            self.wall - earlier.wall,
            self.process - earlier.process,
            self.user - earlier.user,
            self.system - earlier.system,
            self.main - earlier.main,
        )


@attrs.define(eq=False)
class Collections:
    """Counts what the garbage collector does while it is entered."""

    seconds: float = 0.0
    """Of processor time."""
    longest: float = 0.0
    """Of real time."""
    runs: int = 0
    _began: tuple[float, float] = (0.0, 0.0)

    def __enter__(self) -> Collections:
        gc.callbacks.append(self._called)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        gc.callbacks.remove(self._called)

    def _called(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter(), time.thread_time()
        else:
            wall, used = self._began
            self.seconds += time.thread_time() - used
            self.longest = max(self.longest, time.perf_counter() - wall)
            self.runs += 1


def collector_policy() -> str:
    """How the garbage collector is set now."""
    state = "on" if gc.isenabled() else "off"
    return f"{state}, thresholds {gc.get_threshold()}, {gc.get_freeze_count()} objects frozen"


async def hop_microseconds(count: int = 2000) -> float:
    """Processor time of one mailbox hop: an `ask` of an idle actor."""
    address, mailbox = trio.open_memory_channel[Ask[int]](math.inf)

    async def actor() -> None:
        async for question in mailbox:
            question.reply.answer(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor)
        best = math.inf
        for _ in range(3):
            began = time.thread_time()
            for _ in range(count // 3):
                await ask(address, Ask[int]())
            best = min(best, (time.thread_time() - began) / (count // 3))
        address.close()
    return best * 1e6


def loop_microseconds(count: int = 20_000) -> float:
    """Processor time of one turn of a fixed loop: a call into C, a look-up, an addition.

    Nothing of the engine is in it, so it does not change with the code that is measured.
    """
    call: Any = ctypes.CDLL(None).abs
    table = {number: number for number in range(256)}
    best, total = math.inf, 0
    for _ in range(3):
        began = time.thread_time()
        for number in range(count):
            total += table[call(number) & 255]
        best = min(best, time.thread_time() - began)
    return best / count * 1e6


async def units() -> Row:
    """The units of speed, to be measured beside every case."""
    return {"hop_us": await hop_microseconds(), "loop_us": loop_microseconds()}
