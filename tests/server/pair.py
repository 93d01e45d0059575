"""A session and its client in memory, in virtual time: no sockets, no threads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import msgpack
import trio

from pie.config import EngineConfig, Limits
from pie.guest.interfaces import ALL
from pie.guest.wasm import Fuel, WasmHost
from pie.offload import inline
from pie.server.authentication import Authentication
from pie.server.config import Auth, ServerConfig
from pie.server.library import ProgramLibrary
from pie.server.metrics import Metrics
from pie.server.programs import open_programs
from pie.server.protocol import MAX_TEXT
from pie.server.server import Server, open_server
from pie.server.session import Session
from pie.server.transport import Gone
from pie.server.uploads import Budget
from pie.server.users import Users
from pie.testing import SimulatedGpu, simulated_engine
from tests.cli.support import returning

LIMITS = Limits(max_message_bytes=MAX_TEXT)


@attrs.define(eq=False)
class MemoryTransport:
    """The server's end of a connection."""

    capacity: int = 1000
    """Messages that a client takes without reading them."""
    peer: str = "memory"
    closed: tuple[int, str] | None = None
    _closing: trio.Event = attrs.field(factory=trio.Event, init=False)
    _to_server: Any = attrs.field(init=False)
    _to_client: Any = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._to_server = trio.open_memory_channel[bytes | str](1000)
        self._to_client = trio.open_memory_channel[bytes](self.capacity)

    async def receive(self) -> bytes | str:
        try:
            return await self._to_server[1].receive()  # type: ignore[no-any-return]
        except trio.EndOfChannel:
            raise Gone from None

    async def send(self, data: bytes) -> None:
        try:
            await self._to_client[0].send(data)
        except trio.BrokenResourceError:
            raise Gone from None

    def trust(self, budget: Budget) -> None:
        pass

    async def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)
        self._closing.set()


@attrs.define(eq=False)
class Peer:
    """A client: what it sends, and what it has got."""

    transport: MemoryTransport
    _corr_id: int = 0

    def tell(self, kind: str, **fields: object) -> None:
        """Send a message without waiting."""
        self.tell_raw(msgpack.packb({"type": kind, **fields}))

    def tell_raw(self, data: bytes | str) -> None:
        self.transport._to_server[0].send_nowait(data)

    async def hear(self) -> dict[str, Any]:
        """The next message of the server."""
        return msgpack.unpackb(await self.transport._to_client[1].receive())  # type: ignore[no-any-return]

    async def ask(self, kind: str, **fields: object) -> dict[str, Any]:
        """Send a request and wait for its reply; events in between are dropped."""
        self._corr_id += 1
        self.tell(kind, corr_id=self._corr_id, **fields)
        while (reply := await self.hear()).get("corr_id") != self._corr_id:
            pass
        return reply

    async def log_in(self, user: str = "u") -> None:
        assert (await self.ask("identification", username=user))["successful"]

    async def goodbye(self) -> tuple[int, str]:
        """The code and the reason with which the server ends the connection."""
        await self.transport._closing.wait()
        assert self.transport.closed is not None
        return self.transport.closed

    def leave(self) -> None:
        self.transport._to_server[0].close()
        self.transport._to_client[1].close()


@attrs.define(eq=False)
class Pair:
    """A server in memory, to which clients connect."""

    server: Server
    _nursery: trio.Nursery

    def connect(self, *, capacity: int = 1000) -> Peer:
        transport = MemoryTransport(capacity=capacity)
        self._nursery.start_soon(Session(self.server, transport).run)
        return Peer(transport)

    async def keep(self, source: str, user: str = "u") -> str:
        """Put a component, as text, into the library; its hash."""
        from pie.server.blobs import hash_of

        wasm = component(source)
        await self.server.programs.upload(user, wasm, hash_of(wasm), None)
        return hash_of(wasm)


@cache
def component(source: str) -> bytes:
    """The binary of a component's text."""
    from wasmtime import wat2wasm

    return bytes(wat2wasm(source))


RETURNS = returning("the end")


@asynccontextmanager
async def server_in_memory(
    folder: Path, *, config: ServerConfig | None = None, engine: EngineConfig | None = None
) -> AsyncIterator[Pair]:
    """Everything runs on the loop; threads would let the virtual clock run away."""
    config = config or ServerConfig()
    metrics = Metrics()
    host = WasmHost(ALL, preemption=Fuel(100_000, 0.001), offload=inline)
    library = ProgramLibrary.open(folder / "programs")
    authentication = Authentication(Auth.NONE, Users(folder / "users"))
    try:
        async with (
            simulated_engine(
                SimulatedGpu(), config=engine or EngineConfig(limits=LIMITS)
            ) as running,
            open_programs(
                host, library, stored_bytes=config.quotas.stored_bytes, offload=inline
            ) as programs,
            open_server(
                config, running, programs, authentication, metrics, offload=inline
            ) as server,
            trio.open_nursery() as nursery,
        ):
            yield Pair(server, nursery)
            nursery.cancel_scope.cancel()
    finally:
        host.close()
        library.close()
