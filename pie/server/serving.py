"""Puts a server together: an engine behind guarded devices, its programs, and a port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from pie.actors.executor import Device
from pie.config import EngineConfig
from pie.engine import open_engine
from pie.errors import UsageError
from pie.guarded import GuardedDevice
from pie.guest.wasm import WasmHost

from .app import make_app
from .authentication import Authentication
from .config import ServerConfig
from .library import ProgramLibrary
from .listening import Listeners, open_listeners
from .metrics import Metrics
from .programs import open_programs
from .protocol import MAX_TEXT
from .server import Server, open_server

_LAST_STEP_SECONDS = 10.0
"""At the end: how long a step that runs is waited for."""


@attrs.frozen(eq=False)
class Serving:
    """A server that clients can reach."""

    server: Server
    port: int
    _listeners: Listeners

    async def drain(self, grace_seconds: float) -> None:
        """Accept nobody any more, and come to an end with all clients."""
        self._listeners.stop_accepting()
        await self.server.drain(grace_seconds)


@asynccontextmanager
async def serving(
    devices: Sequence[Device],
    *,
    host: WasmHost,
    library: ProgramLibrary,
    authentication: Authentication,
    config: ServerConfig,
    engine_config: EngineConfig,
) -> AsyncIterator[Serving]:
    """Serve models for the duration of the context; leaving it ends what still runs.

    UsageError where the address, TLS or a limit cannot be used.
    """
    _check_limits(engine_config)
    metrics = Metrics()
    guarded = [_guard(device, config, metrics) for device in devices]
    listeners = await open_listeners(config)
    async with (
        open_engine(guarded, engine_config, observe=metrics.model, guests=metrics) as engine,
        open_programs(host, library, stored_bytes=config.quotas.stored_bytes) as programs,
        open_server(config, engine, programs, authentication, metrics) as server,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(listeners.serve, make_app(server))
        try:
            yield Serving(server, listeners.port, listeners)
        finally:
            listeners.finish()
            for device in guarded:
                device.give_up_after(_LAST_STEP_SECONDS)


def _guard(device: Device, config: ServerConfig, metrics: Metrics) -> GuardedDevice:
    model = metrics.model(device.runner.info)
    guarded = GuardedDevice(device, config.step_seconds, on_step=model.on_step)
    model.device = guarded
    return guarded


def _check_limits(engine_config: EngineConfig) -> None:
    limit = engine_config.limits.max_message_bytes
    if limit > MAX_TEXT:
        raise UsageError(
            f"max_message_bytes is {limit}, and no more than {MAX_TEXT} fit a message to a client"
        )
