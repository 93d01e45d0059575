"""A server on loopback in the test's own process, and the published clients in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import attrs
import trio

from pie.actors.executor import Device
from pie.build import build_cached
from pie.config import EngineConfig, Limits
from pie.guest.interfaces import ALL
from pie.guest.wasm import WasmHost
from pie.offload import in_thread
from pie.server.authentication import Authentication
from pie.server.config import Auth, ServerConfig
from pie.server.library import ProgramLibrary
from pie.server.output import hash_of
from pie.server.protocol import MAX_TEXT
from pie.server.server import Server
from pie.server.serving import Serving, serving
from pie.server.users import Users
from pie.testing import SimulatedGpu

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
BUILD = ROOT / ".build"
COMPILED = BUILD / "compiled"
PROBE = Path(__file__).parent / "probe"
LIMITS = Limits(max_message_bytes=MAX_TEXT)
ENDS = ("Completed", "Aborted", "Exception", "ServerError", "OutOfResources")
_PATIENCE_SECONDS = 120.0


@cache
def probe() -> bytes:
    """The component of `probe/app.py`."""
    return build_cached(PROBE, BUILD / "components").read_bytes()


@attrs.frozen(eq=False)
class Live:
    """A running server, for tests that look inside of it as well."""

    serving: Serving
    folder: Path

    @property
    def server(self) -> Server:
        return self.serving.server

    @property
    def port(self) -> int:
        return self.serving.port

    @property
    def uri(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def run(self, scenario: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run asyncio code, such as a client's, in a thread; fails if it takes too long."""
        return await in_asyncio(scenario)


async def in_asyncio(scenario: Callable[[], Coroutine[Any, Any, T]]) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(scenario(), _PATIENCE_SECONDS)

    return await trio.to_thread.run_sync(lambda: asyncio.run(bounded()), abandon_on_cancel=True)


@asynccontextmanager
async def live_server(
    folder: Path,
    *devices: Device,
    config: ServerConfig | None = None,
    engine: EngineConfig | None = None,
    authentication: Authentication | None = None,
) -> AsyncIterator[Live]:
    """Serve simulated models; what it keeps is in `folder`."""
    config = attrs.evolve(config or ServerConfig(), port=0)
    host = WasmHost(ALL, cache=COMPILED)
    try:
        library = await in_thread(ProgramLibrary.open, folder / "programs")
        async with serving(
            devices or (SimulatedGpu(),),
            host=host,
            library=library,
            authentication=authentication or Authentication(Auth.NONE, Users(folder / "users")),
            config=config,
            engine_config=engine or EngineConfig(limits=LIMITS),
        ) as running:
            yield Live(running, folder)
    finally:
        host.close()


async def keep_probe(live: Live, user: str = "u") -> str:
    """Put the probe into the server's library, past all clients; its hash."""
    name = hash_of(probe())
    await live.server.programs.upload(user, probe(), name, None)
    return name


async def events(instance: Any) -> list[tuple[str, Any]]:
    """What a client's instance hears up to its end, by the names of the client's events."""
    heard: list[tuple[str, Any]] = []
    while not heard or heard[-1][0] not in ENDS:
        event, content = await instance.recv()
        heard.append((event.name, content))
    return heard
