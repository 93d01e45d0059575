"""One guest: the task that runs a component's stack until it ends, waits or uses up its slice.

wasmtime runs a guest inside `poll_future`, which returns when the guest has finished, has
suspended in a host call, or was preempted. The task then waits on its own, normal stack: cancel
scopes, virtual time and exceptions work as in any other coroutine, and killing a guest is
leaving the scope around `run`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

import trio

from pie.errors import GuestError, LimitExceeded
from pie.signals import Pollable, Waiter

from . import _capi, traps
from .calls import GUESTS, GuestState
from .host import Err, Ok, Wait
from .instance import Instance
from .program import Program
from .resources import Handles
from .turns import Turns


class Preemption(Protocol):
    """How guests are preempted (see `pie.guest.wasm`)."""

    def prepare(self, store: _capi.Store) -> None:
        """Set up a new store."""

    def renew(self, store: _capi.Store) -> None:
        """The guest has waited: it starts a fresh slice."""

    async def charge(self) -> None:
        """A slice is used up."""


class Guest:
    """A program that runs for an instance: `instantiate`, `run`, and `close`, whatever happened."""

    def __init__(
        self,
        engine: Any,
        program: Program,
        instance: Instance,
        preemption: Preemption,
        cpu: trio.StrictFIFOLock | Turns,
    ) -> None:
        """`cpu` is taken by guests that begin or go on after a slice: few per pass of the loop."""
        self._program, self._instance = program, instance
        self._preemption, self._cpu = preemption, cpu
        self._store = _capi.Store(engine, instance.limits.memory_bytes)
        preemption.prepare(self._store)
        handles = Handles(self._store.context, instance.limits.max_handles)
        self._state = GuestState(instance, handles)
        self._waiter = Waiter(woken=instance.mover.start)
        self._call: _capi.Call | None = None
        self._exports: Any = None
        self._slice_begun = False
        self._cpu_seconds = 0.0
        GUESTS[self._store.context] = self._state

    async def instantiate(self) -> None:
        """Give the program its memory and run what it starts with. Raises what `run` does."""
        program = self._program
        self._exports, call = _capi.instantiate(
            self._store, program.linker_address, program.component_address
        )
        await self._drive(call)

    async def run(self) -> Ok[None] | Err[str]:
        """Call `run` of the instantiated program.

        Raises GuestError for a trap, what a host function raised for everything else.
        """
        program, results = self._program, _capi.Cells()
        await self._drive(_capi.call_export(self._store, self._exports, program.run, results))
        try:
            result: Ok[None] | Err[str] = program.read_result(results.address, self._state.handles)
            return result
        finally:
            _capi.delete_value(results.address)

    def close(self) -> None:
        """Stop the guest where it is and release all it has, newest first; may be repeated.

        The order matters: the stack is unwound before the store goes, and nothing of the guest
        runs any more when its handles are closed. Never waits, so it needs no shield.
        """
        self._end()

    def _end(self, *, measured: bool = False) -> int:
        """Close it; the bytes of linear memory it held, if `measured`, which takes 0.1 ms."""
        if GUESTS.pop(self._store.context, None) is None:
            return 0
        self._instance.mover.stop()
        if self._call is not None:
            self._call.delete()
        _abandon(self._state.suspended)
        try:
            self._state.handles.release_all()
        finally:
            before = traps.writable_bytes() if measured else 0
            self._store.delete()
        return before - traps.writable_bytes() - _capi.STACK_BYTES if measured else 0

    async def _drive(self, call: _capi.Call) -> None:
        """Run `call` to its end. A store can run one call at a time only.

        Waiting for pollables is written out here: each coroutine between Trio and the guest
        costs every resumption.
        """
        assert self._call is None, "a guest is run once"
        self._call = call
        state, handles, waiter = self._state, self._state.handles, self._waiter
        poll = _capi.poll_future if self._instance.limits.cpu_seconds is None else self._timed_poll
        async with self._cpu:
            done = poll(call.future)
        while True:
            if handles.dropped:
                handles.release()
            if done:
                break
            suspended, state.suspended = state.suspended, None
            if suspended is None:
                await self._preempted()
                async with self._cpu:
                    done = poll(call.future)
                continue
            if type(suspended) is Wait:
                pollables, waited = suspended.pollables, False
                while not _any_ready(pollables):
                    self._instance.mover.stop()
                    await waiter.wait(pollables)
                    waited = True
                if waited:
                    self._preemption.renew(self._store)
                    self._slice_begun = False
                value = suspended.result and suspended.result()
            elif state.late.slices is None or not isinstance(suspended, list | tuple):
                value = await self._suspend(suspended)
            else:
                value = suspended
            if state.late.slices is not None:
                for _ in state.late.slices(state.results, value, handles):
                    await trio.lowlevel.checkpoint()
            elif state.late.write is not None:
                state.late.write(state.results, value, handles)
            _capi.MEM[state.flag.address] = 1
            done = poll(call.future)
        error = call.take_error()
        call.delete()
        self._call = None
        if error is not None:
            self._fail(error)

    def _timed_poll(self, future: int | None) -> bool:
        limit = self._instance.limits.cpu_seconds
        assert limit is not None
        began = time.thread_time()
        done: bool = _capi.poll_future(future)
        self._cpu_seconds += time.thread_time() - began
        if self._cpu_seconds > limit and not done:
            raise LimitExceeded(
                f"the program has used {self._cpu_seconds:.3g} s of processor time, "
                f"the limit is {limit:g} s (cpu_seconds)"
            )
        return done

    def _fail(self, text: str) -> None:
        cause, self._state.error = self._state.error, None
        if cause is not None:
            raise cause
        held = self._end(measured=True)
        raise GuestError(traps.explain(text, held, self._instance.limits.memory_bytes))

    async def _preempted(self) -> None:
        if self._slice_begun:
            self._instance.mover.preempted()
        # The first slice after a wait is a partial one: only the next is held against the guest.
        self._slice_begun = True
        await self._preemption.charge()

    async def _suspend(self, coroutine: Any) -> Any:
        # No fresh slice here: a coroutine may end without waiting, and a guest that calls such
        # ones in a loop must still let others run.
        self._instance.mover.stop()
        try:
            return await coroutine
        finally:
            self._instance.mover.start()


def _any_ready(pollables: Sequence[Pollable]) -> bool:
    for pollable in pollables:  # noqa: SIM110  # `any` with a generator costs three times as much
        if pollable.ready():
            return True
    return False


def _abandon(suspended: Any) -> None:
    if hasattr(suspended, "close"):
        suspended.close()
