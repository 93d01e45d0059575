"""An engine on simulated models, and short ways to run guests in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
from inferlet.entry import Main

from pie.actors.executor import Device
from pie.config import EngineConfig
from pie.engine import Engine, GuestProgram, HostModel, open_engine
from pie.ids import EventCode
from pie.messages import Event, Launched, Output
from pie.offload import inline
from pie.programs import NativeProgram

from .gpu import SimulatedGpu


@asynccontextmanager
async def simulated_engine(
    *devices: Device, config: EngineConfig | None = None, host: HostModel | None = None
) -> AsyncIterator[Engine]:
    """An engine without threads: on a virtual clock, a run takes no real time to wait.

    Guests and scheduler take no virtual time either, unless `host` is a `HostCost`.
    """
    models = devices or (SimulatedGpu(),)
    async with open_engine(models, config, offload=inline, host=host) as engine:
        yield engine


@attrs.frozen
class Outcome:
    """Everything a client saw of an instance."""

    event: Event
    messages: tuple[str, ...]
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        """The return value; fails with the reason if the instance did not complete."""
        assert self.event.code is EventCode.COMPLETED, self.event
        return self.event.text


async def outcome_of(launched: Launched) -> Outcome:
    """Read an instance's outbox to its end."""
    messages: list[str] = []
    streams = {"stdout": b"", "stderr": b""}
    last: Event | None = None
    async for item in launched.outbox:
        if isinstance(item, Output):
            streams[item.stream] += item.data
        elif isinstance(item, Event) and item.code is EventCode.MESSAGE:
            messages.append(item.text)
        elif isinstance(item, Event):
            last = item
    assert last is not None, "an outbox ends with a terminal event"
    return Outcome(last, tuple(messages), streams["stdout"].decode(), streams["stderr"].decode())


async def run_program(
    engine: Engine,
    program: GuestProgram,
    arguments: Sequence[str] = (),
    *,
    sends: Sequence[str | bytes] | None = None,
    user: str = "local",
    seed: int | None = None,
) -> Outcome:
    """Run a program to its end. After `sends`, if given, a receive of it fails."""
    launched = await engine.launch(program, arguments, user=user, seed=seed)
    if sends is not None:
        for content in sends:
            await engine.send(launched.instance, content)
        engine.end_input(launched.instance)
    return await outcome_of(launched)


async def run_native(
    engine: Engine,
    main: Main,
    arguments: Sequence[str] = (),
    *,
    user: str = "local",
    seed: int | None = None,
) -> Outcome:
    """Run an inferlet's `main` natively to its end."""
    return await run_program(engine, NativeProgram(main), arguments, user=user, seed=seed)
