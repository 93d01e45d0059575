"""The kinds of guests, and an engine in which they run on a device that answers at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from pie.build import build_cached
from pie.config import EngineConfig, Scheduling
from pie.engine import Engine, GuestProgram, open_engine
from pie.guest.host import HostInterface
from pie.guest.interfaces import ALL
from pie.guest.wasm import WasmHost
from pie.ids import EventCode
from pie.messages import Launched
from pie.programs import NativeProgram, WasmProgram
from pie.signals import wait_any
from pie.testing import HashModel, outcome_of

from .instant import InstantDevice
from .loop.app import main

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / ".build"
PAGE_SIZE = 16
KINDS = (
    *("native", "wat", "python"),
    *("native-generate", "python-generate", "native-stream", "python-stream"),
)
"""The last four let the engine chain their steps, the last two look at each token as it comes."""


def component_of(kind: str) -> Path:
    """The source of a component: built if need be, for a Python guest."""
    return HERE / "loop.wat" if kind == "wat" else build_cached(HERE / "loop", BUILD / "components")


@asynccontextmanager
async def loaded(
    kind: str, guests: int, interfaces: Sequence[HostInterface] = ALL
) -> AsyncIterator[GuestProgram]:
    """The looping inferlet as a program of a kind; UsageError if so many guests cannot be."""
    if kind.startswith("native"):
        yield NativeProgram(main, interfaces)
        return
    host = WasmHost(interfaces, cache=BUILD / "compiled", max_guests=guests)
    try:
        source = await trio.to_thread.run_sync(component_of, kind)
        yield WasmProgram(host, await host.load(source))
    finally:
        host.close()


@attrs.define(eq=False)
class Crowd:
    """Guests of one program in one engine, from launch to their terminal events."""

    engine: Engine
    program: GuestProgram
    device: InstantDevice
    more: list[str]
    """Arguments of its kind."""
    launched: list[Launched] = attrs.field(factory=list)
    texts: list[str] = attrs.field(factory=list)

    async def launch(
        self,
        nursery: trio.Nursery,
        count: int,
        *,
        tokens: int,
        context: int = 1,
        wait: int = 0,
    ) -> None:
        """Start `count` guests; a task in `nursery` waits for the end of each.

        They wait for a message before their first pass with `wait` 1, after it with 2.
        """
        arguments = [str(tokens), str(context), str(wait), *self.more]
        for _ in range(count):
            launched = await self.engine.launch(self.program, arguments)
            self.launched.append(launched)
            nursery.start_soon(self._finish, launched)

    async def _finish(self, launched: Launched) -> None:
        event = (await outcome_of(launched)).event
        if event.code is EventCode.ABORTED:
            return
        assert event.code is EventCode.COMPLETED, event
        self.texts.append(event.text)

    async def settled(self) -> None:
        """Wait until every guest waits for a message, or has ended."""
        (service,) = self.engine.services
        while True:
            await wait_any((service.activity.quiet,))
            (stats,) = (await self.engine.stats()).values()
            if not (service.activity.moving or stats.queued):
                return
            await trio.sleep(0.002)

    async def go(self) -> None:
        """Let all who wait for a message begin, in one turn of the loop."""
        async with trio.open_nursery() as nursery:
            for launched in self.launched:
                nursery.start_soon(self.engine.send, launched.instance, "go")

    async def stop(self) -> None:
        """End those who still wait."""
        async with trio.open_nursery() as nursery:
            for launched in self.launched:
                nursery.start_soon(self.engine.terminate, launched.instance)

    async def check_nothing_left(self) -> None:
        """Fail if anything of the guests is still there."""
        (stats,) = (await self.engine.stats()).values()
        assert stats.pages_free == stats.pages, f"{stats.pages - stats.pages_free} pages leaked"
        assert stats.instances == stats.queued == stats.waiting == 0, stats
        assert await self.engine.instances() == []
        if isinstance(self.program, WasmProgram):
            assert self.program.host.guests == 0, f"{self.program.host.guests} guests leaked"


@asynccontextmanager
async def crowd(
    kind: str, guests: int, pages: int = 64, interfaces: Sequence[HostInterface] = ALL
) -> AsyncIterator[Crowd]:
    """An engine with room for `guests` guests of a kind, one of which has run already."""
    # A step takes a row of each guest, as on a machine that is meant for so many; what it costs to
    # choose among them is a case of `planner`.
    scheduling = Scheduling(step_tokens=max(512, guests))
    config = EngineConfig(max_instances=guests + 1, scheduling=scheduling)
    async with loaded(kind, guests + 1, interfaces) as program:
        _, _, how = kind.partition("-")
        steps = 64 if how == "stream" else 1
        device = InstantDevice(
            HashModel(pages=max(64, pages), page_size=PAGE_SIZE, multi_steps=steps)
        )
        async with open_engine([device], config) as engine:
            more = [how] if how else []
            warm = Crowd(engine, program, device, more)
            async with trio.open_nursery() as nursery:
                await warm.launch(nursery, 1, tokens=4)
            yield Crowd(engine, program, device, more)
