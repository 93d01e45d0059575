"""Where the loop's time goes: a sampling profile by layer of the architecture.

A timer's signal is handled by the interpreter when the running C function returns, or at the next
call or turn of a loop. So time in C counts for the Python line that called it, and a sample at
the very entry of a function is its caller's. That makes the rule for wasm: what is sampled in the
line that polls a guest, or at the entry of a callback out of it, was spent beneath that line. A
sample stands for the processor time since the one before: a long C function delays its own.
"""

from __future__ import annotations

import dis
import gc
import linecache
import random
import re
import signal
import time
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import attrs
import h11
import hypercorn
import quart
import quart_trio
import trio
import werkzeug
import wsproto

import pie

EVERY = 0.001
"""Mean seconds between two samples; each wait is drawn around it, so that no cycle is missed."""

WASM = "wasm and wasmtime, the way in and out"
CODECS = "trampolines and codecs"
SCHEDULER = "scheduler: the rest"

_PIE = str(Path(pie.__file__).parent)
_WEB: tuple[Any, ...] = (hypercorn, wsproto, h11, quart, quart_trio, werkzeug)
_PARTS = (
    (f"{_PIE}/guest/interfaces/", "host functions"),
    (f"{_PIE}/guest/wasi/", "host functions"),
    (f"{_PIE}/guest/driver.py", "guest driver"),
    (f"{_PIE}/guest/wasm.py", "guest driver"),
    (f"{_PIE}/guest/turns.py", "guest driver"),
    (f"{_PIE}/guest/native.py", "native host"),
    (f"{_PIE}/guest/strands.py", "native host"),
    (f"{_PIE}/guest/", CODECS),
    (f"{_PIE}/actors/planner.py", "scheduler: plan"),
    (f"{_PIE}/actors/prediction.py", "scheduler: plan"),
    (f"{_PIE}/actors/dispatch.py", "scheduler: plan"),
    (f"{_PIE}/actors/fairness.py", "scheduler: plan"),
    (f"{_PIE}/actors/packing.py", "scheduler: pack and unpack"),
    (f"{_PIE}/actors/executor.py", "executor"),
    (f"{_PIE}/actors/", SCHEDULER),
    (f"{_PIE}/signals.py", "mailboxes and signals"),
    (f"{_PIE}/mailbox.py", "mailboxes and signals"),
    (f"{_PIE}/activity.py", "mailboxes and signals"),
    (f"{_PIE}/messages/", "mailboxes and signals"),
    (f"{_PIE}/batch.py", "scheduler: pack and unpack"),
    (f"{_PIE}/philox.py", "scheduler: pack and unpack"),
    (f"{_PIE}/server/", "server"),
    (f"{_PIE}/outbox.py", "server"),
    (f"{_PIE}/", "the rest of pie"),
    *((str(Path(package.__file__).parent), "Hypercorn, wsproto, Quart") for package in _WEB),
    (str(Path(__file__).parent / "instant.py"), "executor"),
    (str(Path(__file__).parents[1]), "the benchmark"),
    (f"{Path(trio.__file__).parent}/_core/_io_epoll.py", "Trio: asking the system"),
    (f"{Path(trio.__file__).parent}/_socket.py", "Trio: sockets"),
    (f"{Path(trio.__file__).parent}/_highlevel_socket.py", "Trio: sockets"),
    (str(Path(trio.__file__).parent), "Trio"),
)
_LEDGER = f"{_PIE}/actors/ledger.py"
_STAGES = {"submit": "scheduler: submit", "command": "scheduler: submit"}
_STAGES |= {"finish": "scheduler: settle"}


@attrs.define(eq=False)
class Profile:
    """Processor time by layer between `start` and `stop`, of the main thread, which calls them."""

    seconds: dict[str, float] = attrs.field(factory=dict)
    samples: int = 0
    _last: float = 0.0
    _running: bool = False
    _collecting: bool = False

    def start(self) -> None:
        self._running = True
        self._last = time.thread_time()
        gc.callbacks.append(self._collects)
        signal.signal(signal.SIGALRM, self._take)
        self._arm()

    def stop(self) -> None:
        self._running = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.callbacks.remove(self._collects)

    def shares(self) -> dict[str, float]:
        """The part of all samples in each layer, the largest first."""
        total = sum(self.seconds.values())
        largest = sorted(self.seconds.items(), key=lambda entry: -entry[1])
        return {layer: seconds / total for layer, seconds in largest}

    def _arm(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, EVERY * random.uniform(0.5, 1.5))

    def _take(self, _: int, frame: FrameType | None) -> None:
        if self._running:
            now = time.thread_time()
            # What came during a collection is handled at the entry of its last callback.
            layer = "garbage collection" if self._collecting else layer_of(frame)
            self.seconds[layer] = self.seconds.get(layer, 0.0) + now - self._last
            self.samples += 1
            self._last = now
            self._arm()

    def _collects(self, phase: str, info: dict[str, int]) -> None:
        self._collecting = phase == "start"


def layer_of(frame: FrameType | None) -> str:
    """The layer that the time before this moment was spent in."""
    if frame is not None and frame.f_lasti == _entry(frame.f_code):
        frame = frame.f_back
    while frame is not None:
        layer = _layer_of_code(frame.f_code)
        if layer == "guest driver" and _polls(frame.f_code.co_filename, frame.f_lineno or 0):
            return WASM
        if layer == SCHEDULER:
            return _stage(frame)
        if layer is not None:
            return layer
        frame = frame.f_back
    return "elsewhere"


@cache
def _entry(code: CodeType) -> int:
    """The offset of the instruction that a function begins with, after what sets up its cells."""
    return next(i.offset for i in dis.get_instructions(code) if i.opname == "RESUME")


@cache
def _layer_of_code(code: CodeType) -> str | None:
    """None: a library's, which works for whoever called it."""
    name = code.co_filename
    if name.startswith("<") and not name.startswith(("<attrs ", "<frozen ", "<string>")):
        return CODECS  # generated by `pie.guest`
    return next((layer for prefix, layer in _PARTS if name.startswith(prefix)), None)


@cache
def _polls(path: str, line: int) -> bool:
    return re.search(r"\bpoll(_future)?\(", linecache.getline(path, line)) is not None


def _stage(frame: FrameType | None) -> str:
    """What the scheduler is doing: the ledger's function that was called from outside it."""
    stage = SCHEDULER
    while frame is not None and frame.f_code.co_filename.startswith(f"{_PIE}/actors/"):
        if frame.f_code.co_filename == _LEDGER:
            stage = _STAGES.get(frame.f_code.co_name, stage)
        frame = frame.f_back
    return stage
