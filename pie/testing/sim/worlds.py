"""Where runs take place: virtual time without threads, or real time with them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from importlib import resources
from random import Random

import attrs
import trio

from pie.batch import Batch, BatchResult
from pie.devices import ThreadedModel
from pie.engine import GuestProgram
from pie.guest.interfaces import ALL
from pie.guest.wasm import Epochs, Fuel, Preemption, WasmHost
from pie.offload import Offload, in_thread, inline
from pie.programs import NativeProgram, WasmProgram
from pie.testing.gpu import SimulatedGpu
from pie.testing.hashing import HashModel
from pie.testing.timing import LinearTiming

from .device import FaultyDevice
from .files import FaultyFiles
from .machine import Machine
from .plan import GuestPlan, Plan
from .running import World

FUEL = Fuel(units=50_000, seconds=0.002_5)
TICK = Epochs(tick_seconds=0.002)
PACE = 0.05
"""Of real time: clients and machines are that much faster than in virtual time."""
VIRTUAL_LIMIT, REAL_LIMIT = 5_000.0, 120.0


def virtual_world(plan: Plan) -> World:
    """Everything is decided by the seed."""
    return World(
        device=_simulated,
        program=_programs(FUEL, plan.scenario.has_components),
        offload=_files(inline, plan),
        limit_seconds=VIRTUAL_LIMIT,
        settle_seconds=1.0,
    )


def real_world(plan: Plan) -> World:
    """Steps in a worker thread, components preempted by the clock, real time."""
    return World(
        device=_threaded,
        program=_programs(TICK, plan.scenario.has_components),
        offload=_files(in_thread, plan),
        limit_seconds=REAL_LIMIT,
        settle_seconds=0.1,
    )


def _files(offload: Offload, plan: Plan) -> Offload:
    return FaultyFiles(offload, plan.machine, Random(f"files {plan.seed}"))


def _model(machine: Machine) -> HashModel:
    return HashModel(
        pages=machine.pages,
        page_size=machine.page_size,
        embedding_slots=machine.embedding_slots,
        adapter_slots=machine.adapter_slots,
        multi_steps=machine.multi_steps,
    )


def _simulated(plan: Plan, reached: Counter[str]) -> FaultyDevice:
    machine = plan.machine
    timing = LinearTiming(machine.step_seconds, machine.row_seconds)
    gpu = SimulatedGpu(_model(machine), timing, seed=plan.seed, jitter=machine.jitter)
    return _faulty(FaultyDevice, gpu, plan, machine, reached)


def _threaded(plan: Plan, reached: Counter[str]) -> FaultyDevice:
    machine = attrs.evolve(
        plan.machine,
        step_seconds=plan.machine.step_seconds * PACE,
        row_seconds=plan.machine.row_seconds * PACE,
    )
    runner = SlowModel(_model(machine), machine)
    return _faulty(FaultyDevice, ThreadedModel(runner), plan, machine, reached)


def _faulty(
    make: type[FaultyDevice],
    device: SimulatedGpu | ThreadedModel,
    plan: Plan,
    machine: Machine,
    reached: Counter[str],
) -> FaultyDevice:
    def reach(what: str) -> None:
        reached[what] += 1

    return make(device, machine, Random(f"faults {plan.seed}"), reach)


class SlowModel(HashModel):
    """A `HashModel` that blocks its thread for as long as a step takes."""

    def __init__(self, model: HashModel, machine: Machine) -> None:
        self.__dict__.update(model.__dict__)
        self._machine = machine

    def run(self, batch: Batch) -> BatchResult:
        time.sleep(self._machine.step_seconds + self._machine.row_seconds * batch.rows)
        return super().run(batch)


# -------------------------------------------------------------------------- programs


@cache
def _programs(preemption: Preemption, components: bool) -> Callable[[GuestPlan], GuestProgram]:
    """How guests of this world become programs; compiles the components, once per process."""
    loaded = _components(preemption) if components else {}

    def program(guest: GuestPlan) -> GuestProgram:
        kind = guest.program
        if kind.main is not None:
            return NativeProgram(kind.main)
        assert kind.component is not None
        return loaded[kind.component]

    return program


def _components(preemption: Preemption) -> dict[str, WasmProgram]:
    host = WasmHost(ALL, preemption=preemption, offload=inline)
    folder = resources.files("pie.testing.sim") / "guests"
    return {
        path.name: WasmProgram(host, trio.run(partial(host.load, path.read_bytes())))
        for path in folder.iterdir()
        if path.name.endswith(".wat")
    }
