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
from pie.signals import Pollable, Waiter, wait_any

from . import _capi, traps
from .calls import GUESTS, GuestState, Suspended
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
    """A program that runs for an instance. `run` it once, then `close` it, whatever happened."""

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
        self._slice_begun = False
        self._cpu_seconds = 0.0
        self._held_bytes = 0
        GUESTS[self._store.context] = self._state

    async def run(self) -> Ok[None] | Err[str]:
        """Instantiate the program and call its `run`.

        Raises GuestError for a trap, what a host function raised for everything else.
        """
        store, program = self._store, self._program
        instance, call = _capi.instantiate(store, program.linker_address, program.component_address)
        await self._drive(call)
        results = _capi.Cells()
        await self._drive(_capi.call_export(store, instance, program.run, results))
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
        if GUESTS.pop(self._store.context, None) is None:
            return
        self._instance.mover.stop()
        if self._call is not None:
            self._call.delete()
        _abandon(self._state.suspended)
        try:
            self._state.handles.release_all()
        finally:
            self._held_bytes = traps.writable_bytes()
            self._store.delete()
            self._held_bytes -= traps.writable_bytes() + _capi.STACK_BYTES

    async def _drive(self, call: _capi.Call) -> None:
        """Run `call` to its end. A store can run one call at a time only."""
        assert self._call is None, "a guest is run once"
        self._call = call
        async with self._cpu:
            done = self._poll(call)
        while not done:
            suspended, self._state.suspended = self._state.suspended, None
            if suspended is None:
                await self._preempted()
                async with self._cpu:
                    done = self._poll(call)
            else:
                await self._answer(suspended)
                done = self._poll(call)
        error = call.take_error()
        call.delete()
        self._call = None
        if error is not None:
            self._fail(error)

    def _poll(self, call: _capi.Call) -> bool:
        limit = self._instance.limits.cpu_seconds
        began = 0.0 if limit is None else time.thread_time()
        done: bool = _capi.poll_future(call.future)
        self._state.handles.release()
        if limit is not None:
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
        self.close()
        limit = self._instance.limits.memory_bytes
        raise GuestError(traps.explain(text, self._held_bytes, limit))

    async def _preempted(self) -> None:
        if self._slice_begun:
            self._instance.mover.preempted()
        # The first slice after a wait is a partial one: only the next is held against the guest.
        self._slice_begun = True
        await self._preemption.charge()

    async def _answer(self, suspended: Suspended) -> None:
        """Find the value that the guest waits for and write it where wasmtime expects it."""
        value = suspended.value
        if isinstance(value, Wait):
            value = await self._wait(value)
        elif suspended.slices is None or not isinstance(value, list | tuple):
            value = await self._suspend(value)
        state = self._state
        if suspended.slices is not None:
            for _ in suspended.slices(suspended.results, value, state.handles):
                await trio.lowlevel.checkpoint()
        elif suspended.write is not None:
            suspended.write(suspended.results, value, state.handles)
        state.flag.done()

    async def _wait(self, wait: Wait) -> Any:
        waited = False
        while not _any_ready(wait.pollables):
            self._instance.mover.stop()
            await wait_any(wait.pollables, self._waiter)
            waited = True
        if waited:
            self._preemption.renew(self._store)
            self._slice_begun = False
        return wait.result and wait.result()

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


def _abandon(suspended: Suspended | None) -> None:
    if suspended is not None and hasattr(suspended.value, "close"):
        suspended.value.close()
