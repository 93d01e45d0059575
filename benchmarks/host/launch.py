"""How long a launch takes: cold and warm, alone and a thousand at once."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import trio

from pie.guest.host import HostFunction, HostInterface
from pie.guest.interfaces import ALL
from pie.guest.wasm import WasmHost

from .guests import Crowd, component_of, crowd
from .machine import Row, Usage


@attrs.define(eq=False)
class FirstCalls:
    """Notes when each guest makes its first call of the library or the WAT guest.

    Both begin with `get-arguments`; what a component's own runtime calls before that, of WASI,
    belongs to its start.
    """

    at: dict[int, float] = attrs.field(factory=dict)

    def interfaces(self) -> Sequence[HostInterface]:
        """The host interfaces, with that one function watched."""
        return tuple(self._watched(interface) for interface in ALL)

    def _watched(self, interface: HostInterface) -> HostInterface:
        function = interface.functions.get("get-arguments")
        if function is None:
            return interface
        inner = function.implementation

        def noting(instance: Any) -> Any:
            self.at.setdefault(instance.id, time.perf_counter())
            return inner(instance)

        functions = dict(interface.functions)
        functions["get-arguments"] = HostFunction(function.name, noting, function.suspends)
        return HostInterface(interface.name, functions)


async def cold(kind: str) -> Row:
    """Seconds to load a component: compiled now, and from the cache of compiled ones."""
    source = await trio.to_thread.run_sync(component_of, kind)
    folder = Path(tempfile.mkdtemp(prefix="pie-benchmark-"))
    row: Row = {"component_mib": source.stat().st_size / (1 << 20)}
    try:
        for name in ("compile", "cached"):
            host = WasmHost(ALL, cache=folder / "compiled")
            began = Usage.now()
            await host.load(source)
            used = Usage.now() - began
            row[f"{name}_ms"] = used.wall * 1e3
            row[f"{name}_cpu_ms"] = used.process * 1e3
            host.close()
    finally:
        shutil.rmtree(folder)
    return row


async def warm(kind: str, *, quick: bool) -> Row:
    """One launch after another of a guest that returns at once."""
    count = {"python": 30, "wat": 100, "native": 100}[kind] * (1 if quick else 3)
    calls = FirstCalls()
    first: list[float] = []
    ended: list[float] = []
    async with crowd(kind, 4, interfaces=calls.interfaces()) as many:
        began = Usage.now()
        for _ in range(count):
            at, to_end = await _once(many, calls)
            first.append(at)
            ended.append(to_end)
        used = Usage.now() - began
        await many.check_nothing_left()
    return {
        "launches": count,
        **_spread("first_call", first),
        **_spread("terminal_event", ended),
        "cpu_us": used.process / count * 1e6,
    }


async def _once(many: Crowd, calls: FirstCalls) -> tuple[float, float]:
    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        await many.launch(nursery, 1, tokens=0)
    ended = time.perf_counter()
    assert many.texts.pop() == ""
    return calls.at[many.launched[-1].instance] - began, ended - began


async def bulk(kind: str, guests: int) -> Row:
    """`guests` launches as fast as the engine takes them, each of a guest that returns at once."""
    calls = FirstCalls()
    async with crowd(kind, guests, interfaces=calls.interfaces()) as many:
        calls.at.clear()
        began = Usage.now()
        async with trio.open_nursery() as nursery:
            await many.launch(nursery, guests, tokens=0)
            asked = Usage.now() - began
        used = Usage.now() - began
        assert many.texts == [""] * guests
        await many.check_nothing_left()
    return {
        "guests": guests,
        "asked_ms": asked.wall * 1e3,
        "all_ended_ms": used.wall * 1e3,
        "launches_per_second": guests / used.wall,
        "cpu_us": used.process / guests * 1e6,
        **_spread("first_call", [at - began.wall for at in calls.at.values()]),
    }


def _spread(name: str, seconds: list[float]) -> Row:
    return {
        f"{name}_ms_median": statistics.median(seconds) * 1e3,
        f"{name}_ms_p95": sorted(seconds)[int(len(seconds) * 0.95)] * 1e3,
    }
