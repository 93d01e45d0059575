"""The host of WebAssembly guests: loads programs and runs any number of them on one loop."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import trio

from pie.errors import UsageError
from pie.offload import Offload, in_thread

from . import _capi
from .apart import USUAL, CompileLimits, compile_apart
from .cache import Cache, configuration
from .driver import Guest
from .host import Err, HostInterface, Ok
from .instance import Instance
from .mappings import Mappings, count_mappings, guests_possible, most_mappings
from .program import Program, prepare
from .source import read_source
from .ticker import Ticker
from .turns import Turns
from .wasi import Exit, interfaces_of_wasi

__all__ = ["Epochs", "Fuel", "Preemption", "Program", "WasmHost"]


@attrs.frozen
class Epochs:
    """Preempt by the clock: a guest that runs through a whole tick lets others run."""

    tick_seconds: float = 0.003


@attrs.frozen
class Fuel:
    """Preempt by instructions, the same in every run: for simulation.

    Each slice of `units` (about one per instruction) takes `seconds` of Trio's clock.
    """

    units: int
    seconds: float


Preemption: TypeAlias = Epochs | Fuel


@attrs.frozen
class _ByEpochs:
    ticker: Ticker

    def prepare(self, store: _capi.Store) -> None:
        store.yield_every_tick()

    def renew(self, store: _capi.Store) -> None:
        # Within a tick it would be the same deadline again. A tick that is missed here, since
        # the epoch is advanced before it is counted, costs the guest a yield and no more.
        if store.renewed != self.ticker.ticks:
            store.renewed = self.ticker.ticks
            _capi.set_epoch_deadline(store.context, 1)

    async def charge(self) -> None:
        pass  # real time has passed already


@attrs.frozen
class _ByFuel:
    fuel: Fuel
    cpu: trio.StrictFIFOLock

    def prepare(self, store: _capi.Store) -> None:
        store.yield_every(self.fuel.units)

    def renew(self, store: _capi.Store) -> None:
        pass  # what is left of a slice is carried over, so that all instructions are charged

    async def charge(self) -> None:
        async with self.cpu:  # one processor: who waits for it waits longer
            await trio.sleep(self.fuel.seconds)


class WasmHost:
    """An engine, its interfaces, and the guests that live in it."""

    def __init__(
        self,
        interfaces: Iterable[HostInterface],
        *,
        preemption: Preemption = Epochs(),
        cache: Path | None = None,
        offload: Offload = in_thread,
        max_guests: int | None = None,
    ) -> None:
        """Offer `interfaces` and our part of WASI to guests.

        `cache` is a folder for compiled programs, created if needed. UsageError for one that
        others can write to, and for more `max_guests` than this system has mappings for; without
        it, there may be as many as fit (see `pie.guest.mappings`).
        """
        self._fuel = isinstance(preemption, Fuel)
        self._engine = _capi.new_engine(fuel=self._fuel)
        self._cpu: trio.StrictFIFOLock | Turns
        self._ticker: Ticker | None = None
        self._preemption: Any
        if isinstance(preemption, Fuel):
            self._cpu = trio.StrictFIFOLock()
            self._preemption = _ByFuel(preemption, self._cpu)
        else:
            self._cpu = Turns(preemption.tick_seconds)
            self._ticker = Ticker(self._engine, preemption.tick_seconds)
            self._preemption = _ByEpochs(self._ticker)
        offered = [*interfaces_of_wasi(simulated=self._fuel), *interfaces]
        self._interfaces = {interface.name: interface for interface in offered}
        self._cache: Cache | None = None
        if cache is not None:
            self._cache = Cache(cache, self._engine, configuration(self._fuel))
        self._offload = offload
        _check_limit(max_guests)
        self._max_guests = max_guests
        self._guests = 0
        self._mappings = Mappings(offload, counted=count_mappings())

    @property
    def guests(self) -> int:
        """Guests alive now."""
        return self._guests

    async def needs_compiling(self, source: bytes | Path) -> bool:
        """Whether there is a cache and it lacks this; ProgramError if it is surely no component."""
        if self._cache is None:
            return False
        return not await self._offload(lambda cache: cache.has(read_source(source)), self._cache)

    async def compile(self, source: bytes, *, name: str, limits: CompileLimits = USUAL) -> None:
        """Compile into the cache, in a process of its own that leaves time to everybody else.

        Raises ProgramError if it is no component or takes more than `limits`, UsageError if the
        cache cannot be written. `load` then finds it, and checks whether it is an inferlet.
        """
        assert self._cache is not None, "there is nowhere to compile to"
        task = limits.task(self._cache.folder, len(source), fuel=self._fuel)
        await compile_apart(task, source, name)

    async def load(self, source: bytes | Path, *, name: str = "") -> Program:
        """Compile, link and test a component, binary or text, away from the loop.

        Raises ProgramError with one line that says why it is no inferlet.
        """
        return await self._offload(
            partial(prepare, fuel=self._fuel),
            self._engine,
            self._interfaces,
            self._cache,
            source,
            name,
        )

    async def run(self, program: Program, instance: Instance) -> Ok[None] | Err[str]:
        """Run `program` as `instance` to its end, and give what its `run` returned.

        Raises GuestError when the guest trapped or broke a rule, UsageError when no guest can
        be added, and unchanged what a host function raised. Nothing of the guest is left when
        this returns, raises or is cancelled.
        """
        if self._guests == self._max_guests:
            raise UsageError(f"{self._guests} guests run, and at most so many may")
        self._guests += 1
        if self._ticker is not None:
            self._ticker.run()
        try:
            if not self._mappings.room():
                await self._mappings.make_sure()
            return await self._run(program, instance)
        finally:
            self._guests -= 1
            if self._ticker is not None and self._guests == 0:
                self._ticker.rest()

    async def _run(self, program: Program, instance: Instance) -> Ok[None] | Err[str]:
        instance.mover.start()
        guest = Guest(self._engine, program, instance, self._preemption, self._cpu)
        count = self._mappings.begin()
        try:
            try:
                await guest.instantiate()
            finally:
                self._mappings.complete()
            return await guest.run()
        except Exit as end:
            if end.success:
                return Ok()
            raise
        finally:
            guest.close()
            self._mappings.end(count)

    def close(self) -> None:
        """Stop the epoch thread. No guest may be alive."""
        assert self._guests == 0, f"{self._guests} guests are alive"
        if self._ticker is not None:
            self._ticker.close()


def _check_limit(wanted: int | None) -> None:
    if wanted is not None and wanted > guests_possible():
        raise UsageError(
            f"{wanted} guests are more than the {guests_possible()} small ones that "
            f"vm.max_map_count = {most_mappings()} leaves room for"
        )
