"""The threads of a step: they take work from shared counters and meet at barriers.

All threads run the same function. They sleep on a futex between steps, each at one of two doors,
and hold no interpreter lock. A barrier spins for a moment and then yields the processor: on a
machine with other work, spinning for longer costs more than it saves.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir

from .emit import I8, I32, I64, Emit, Value, const
from .inlined import kernel
from .jit import compiled, staged
from .shapes import Number
from .target import require

TARGET = require()

_FUTEX = {"x86_64": 202, "aarch64": 98}
"""The number of the system call."""

_WAIT, _WAKE = 128, 129
"""FUTEX_WAIT and FUTEX_WAKE, of this process alone."""

SPINS = 1000
"""Pauses at a barrier before the processor is yielded: about 10 microseconds."""

# The shared words, one cache line each.
ARRIVED, STOP, STARTED, ENDED, ONE = 0, 64, 128, 192, 256
"""Arrivals at barriers; whether all is over; calls begun and ended; the number 1, for a bell."""
FIRST_DOOR, DOOR = 320, 448
"""Where thread 0 sleeps, whose part a caller may take instead, and where the others do."""
SYNC_BYTES = 576

_GO, _SLEEPING = 0, 64
"""The words of a door: how often it has been opened, and how many sleep there."""


def _atomic_add(e: Emit, address: Value, value: Value) -> Value:
    pointer = e.b.inttoptr(address, I64.as_pointer())
    return e.b.atomic_rmw("add", pointer, value, "seq_cst")


def _atomic_load(e: Emit, address: Value) -> Value:
    return e.b.load_atomic(e.b.inttoptr(address, I64.as_pointer()), "acquire", 8)


def _pause(e: Emit) -> None:
    if platform.machine() == "x86_64":
        e.call("llvm.x86.sse2.pause", ir.VoidType())
    elif platform.machine() == "aarch64":
        e.call("llvm.aarch64.hint", ir.VoidType(), const(I32, 1))


def _sched_yield(e: Emit) -> None:
    e.call("sched_yield", I32)


def _futex(e: Emit, address: Value, operation: Value, value: Value) -> None:
    module = e.b.module
    function = module.globals.get("syscall")
    if function is None:
        function = ir.Function(module, ir.FunctionType(I64, [I64], var_arg=True), "syscall")
    number, none = const(I64, _FUTEX[platform.machine()]), const(I64, 0)
    e.b.call(function, [number, address, operation, value, none, none, none])


def _write(e: Emit, descriptor: Value, address: Value, count: Value) -> None:
    e.call("write", I64, e.b.trunc(descriptor, I32), e.b.inttoptr(address, I8.as_pointer()), count)


def _kernel(emit: Any, result: Any = None) -> Any:
    return kernel(TARGET, emit, result)


atomic_add = _kernel(_atomic_add, Number.INT)
"""Add to an int64 at an address; what was there before."""
atomic_load = _kernel(_atomic_load, Number.INT)
write = _kernel(_write)
"""The system's: `count` bytes at an address to a descriptor."""
_pause_now = _kernel(_pause)
_yield_now = _kernel(_sched_yield)
_call_futex = _kernel(_futex)


@compiled
def meet(sync: int, arrivals: int) -> None:
    """Arrive, and wait until `arrivals` in all have been counted since the threads began."""
    atomic_add(sync + ARRIVED, 1)
    spins = 0
    while atomic_load(sync + ARRIVED) < arrivals:
        _pause_now()
        spins += 1
        if spins > SPINS:
            _yield_now()


@staged
def open_door(door: int) -> None:
    """Start who waits at a door on what has been put into shared memory."""
    atomic_add(door + _GO, 1)
    if atomic_load(door + _SLEEPING) > 0:
        _call_futex(door + _GO, _WAKE, 1 << 20)


@compiled
def await_work(sync: int, door: int, seen: int) -> bool:
    """Wait until `door` opens for time `seen + 1`; False if that was the last and means the end."""
    while atomic_load(door + _GO) == seen:  # not a moment awake: the loop needs the processor
        atomic_add(door + _SLEEPING, 1)
        if atomic_load(door + _GO) == seen:
            _call_futex(door + _GO, _WAIT, seen)
        atomic_add(door + _SLEEPING, -1)
    return bool(atomic_load(sync + STOP) == 0)
