"""Runs the cases on simulated engines, as components and natively.

What is recorded of a case is which host functions its guest called and whether they trapped.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import trio
from inferlet.errors import Failure
from inferlet.native import HOST
from trio.testing import MockClock

from pie.config import EngineConfig, Limits, Scheduling
from pie.engine import Engine
from pie.guest.wasm import Fuel, Program, WasmHost
from pie.ids import EventCode
from pie.messages import BlobSent, Event, Launched
from pie.offload import inline
from pie.programs import NativeProgram, WasmProgram
from pie.signals import Deadline
from pie.testing import HashModel, SimulatedGpu, simulated_engine

from . import build
from .guest.cases import CASES, Case, Guest, Refusal, as_text
from .low_level import C_CASES, WAT, WAT_CASES
from .recording import INTERFACES, RECORDER, SHORT, WASI, short

KINDS = {"C": C_CASES, "WAT": WAT_CASES}
"""The cases that are not in Python, by what they are made of."""
SEED = 1
PATIENCE_SECONDS = 1000
"""Of virtual time, in which every case must end."""


ALONE = [name for name, case in CASES.items() if case.alone]


class NativeHost:
    """The host functions for a case that runs natively."""

    async def call(self, name: str, /, *arguments: Any) -> Any:
        match name:
            case "poll":
                return await HOST.get().poll(*arguments)
            case "pollable.block":
                return await HOST.get().poll(arguments)
            case "pollable.ready":
                return arguments[0].ready()
            case "now":
                return round(trio.current_time() * 1e9)
            case "subscribe-duration":
                return Deadline(trio.current_time() + arguments[0] / 1e9)
        return await HOST.get().call(*SHORT[name], *arguments)

    def drop(self, handle: Any, /) -> None:
        HOST.get().drop(handle)


def native_main(case: Case) -> Callable[[list[str]], Awaitable[str]]:
    """The case as an inferlet's `main`."""

    async def main(arguments: list[str]) -> str:
        try:
            return as_text(await case.body(Guest(NativeHost(), arguments[1:])))
        except Refusal as refusal:
            raise Failure(str(refusal)) from None

    return main


def _path_of(kind: str) -> Path:
    match kind:
        case "Python":
            return build.python_guest()
        case "C":
            return build.c_guest()
    return WAT


@cache
def component(kind: str) -> WasmProgram:
    """A guest in a host that preempts by fuel, so that its time is virtual."""
    host = WasmHost(
        INTERFACES,
        preemption=Fuel(10_000_000, 0.001),
        cache=build.CACHE / "compiled",
        offload=inline,
    )
    program: Program = trio.run(host.load, _path_of(kind))
    return WasmProgram(host, program)


@attrs.frozen
class Ending:
    """All that a client saw of a case's instance."""

    event: Event
    messages: tuple[str, ...]
    blobs: tuple[bytes, ...]

    @property
    def returned(self) -> Any:
        assert self.event.code is EventCode.COMPLETED, self.event
        return json.loads(self.event.text)


@asynccontextmanager
async def engine_for(case: Case) -> AsyncIterator[Engine]:
    """An engine as the case wants it, of two models; nothing but exports may be left in it."""
    config = EngineConfig(
        limits=Limits(**case.limits), scheduling=Scheduling(step_tokens=case.step_tokens)
    )
    first = SimulatedGpu(HashModel(**case.model))
    second = SimulatedGpu(HashModel("second", pages=64, adapter_slots=0))
    async with simulated_engine(first, second, config=config) as engine:
        yield engine
        stats = await engine.stats()
        assert stats["simulated"].pages - stats["simulated"].pages_free == case.keeps
        assert all(s.instances == s.queued == s.waiting == 0 for s in stats.values())
        assert all(service.activity.moving == 0 for service in engine.services)


async def start(engine: Engine, case: Case, caller: str, user: str = "local") -> Launched:
    """Launch a case as a component of this kind or as a "native" guest, and talk to it."""
    arguments = [*case.arguments] if caller == "WAT" else [case.name, *case.arguments]
    native = caller == "native"
    program = NativeProgram(native_main(case), INTERFACES) if native else component(caller)
    launched = await engine.launch(program, arguments, user=user, seed=SEED)
    for content in case.sends:
        await engine.send(launched.instance, content)
    return launched


async def end_of(launched: Launched) -> Ending:
    """Read what an instance tells its client, to the end."""
    messages: list[str] = []
    blobs: list[bytes] = []
    last = Event(EventCode.SERVER_ERROR, "its outbox had no end")
    async for item in launched.outbox:
        if isinstance(item, BlobSent):
            blobs.append(item.data)
        elif isinstance(item, Event) and item.code is EventCode.MESSAGE:
            messages.append(item.text)
        elif isinstance(item, Event):
            last = item
    return Ending(last, tuple(messages), tuple(blobs))


async def run_alone(case: Case, caller: str) -> Ending:
    """Run one case in an engine of its own."""
    async with engine_for(case) as engine:
        with trio.fail_after(PATIENCE_SECONDS):
            return await end_of(await start(engine, case, caller))


@attrs.frozen
class Run:
    """How a case ended, and what its guest called."""

    ending: Ending
    calls: frozenset[tuple[str, str, str]]


@cache
def ran(name: str, caller: str) -> Run:
    """The one run of a case in this process, on a virtual clock."""
    if caller != "native":
        component(caller)
    RECORDER.calls.clear()
    clock = MockClock(autojump_threshold=0)
    ending = trio.run(run_alone, KINDS.get(caller, CASES)[name], caller, clock=clock)
    return Run(ending, frozenset(RECORDER.calls))


def calls_of(name: str, caller: str, *, wasi: bool = True) -> str:
    """The functions that a case called, in short form; an exclamation mark where one trapped."""
    outcomes: dict[str, str] = {}
    for interface, function, outcome in sorted(ran(name, caller).calls):
        if wasi or interface not in WASI:
            outcomes[short(function)] = "!" if outcome == "trap" else ""
    return " ".join(sorted(function + mark for function, mark in outcomes.items()))


def record() -> dict[str, dict[str, str]]:
    """What each case called, by the kind of component that ran it."""
    kinds = {"Python": ALONE, "C": C_CASES, "WAT": WAT_CASES}
    return {kind: {name: entry(name, kind) for name in names} for kind, names in kinds.items()}


def entry(name: str, caller: str) -> str:
    """A case in the record."""
    completed = ran(name, caller).ending.event.code is EventCode.COMPLETED
    return f"{'returned' if completed else 'trapped'}: {calls_of(name, caller)}"
