"""The programs of a server, ready to be launched: checked, compiled on demand, kept in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from pie.config import MIB
from pie.errors import ProgramError, UsageError
from pie.guest.wasm import Program, WasmHost
from pie.offload import Offload, in_thread
from pie.programs import WasmProgram

from .arrivals import Arrivals
from .blobs import check_hash
from .library import ProgramLibrary
from .library_tables import Entry
from .manifest import read_manifest
from .program_names import ProgramName, is_hash, parse_name
from .recent import RecentPrograms
from .shared_work import SharedWork, Turns

_BINARY = b"\0asm"
_SHOWN = 12
"""Digits of a hash that stand for it in messages."""

Arriving = tuple[str, str, ProgramName | None]
"""User, hash and name of an upload."""


@asynccontextmanager
async def open_programs(
    host: WasmHost,
    library: ProgramLibrary,
    *,
    stored_bytes: int,
    loaded_bytes: int = 1024 * MIB,
    waiting_bytes: int = 512 * MIB,
    offload: Offload = in_thread,
) -> AsyncIterator[Programs]:
    """Programs of `library`, for as long as this is open.

    A user may have `stored_bytes` of uploads; components of `loaded_bytes` are kept in memory
    beside those that run, and uploads of `waiting_bytes` that are not compiled yet. What is
    being compiled at the end is cancelled.

    A host without a folder for compiled programs compiles in this process, where that slows down
    everything else.
    """
    async with trio.open_nursery() as nursery:
        yield Programs(
            host=host,
            library=library,
            stored_bytes=stored_bytes,
            offload=offload,
            uploads=SharedWork(nursery),
            loads=SharedWork(nursery),
            recent=RecentPrograms(loaded_bytes),
            arrivals=Arrivals(waiting_bytes),
        )
        nursery.cancel_scope.cancel()


@attrs.define(eq=False, kw_only=True)
class Programs:
    """What sessions ask for programs. Any call may be cancelled, and harms nobody else's then.

    Raises UsageError for what a client got wrong, ProgramError with one line for a program that
    is no inferlet.
    """

    _host: WasmHost
    _library: ProgramLibrary
    _stored_bytes: int
    _offload: Offload
    _uploads: SharedWork[Arriving, None]
    _loads: SharedWork[str, Program]
    _recent: RecentPrograms
    _arrivals: Arrivals
    _compiling: Turns = attrs.field(factory=Turns)
    _linking: trio.Lock = attrs.field(factory=trio.Lock)
    """So that of the work which needs the interpreter, little goes on beside the loop."""

    async def upload(self, user: str, wasm: bytes, hash: str, manifest: str | None) -> None:
        """Check that `wasm`, a binary component, is an inferlet, and keep it for this user.

        With a manifest it has a name, too, for this user alone. Older uploads of the user make
        room (see `pie.server.library_room`); UsageError if they cannot, or if too much waits.
        """
        name = None if manifest is None else read_manifest(manifest)
        work = partial(self._upload, (user, hash, name), [wasm])
        del wasm  # many may wait for the same content, which is then held once
        await self._uploads.do((user, hash, name), work)

    async def exists(self, user: str, record: str) -> bool:
        """Whether this user can launch a hash, or `[ns/]name[@version][#hash]`."""
        if is_hash(record):
            return await self._offload(self._library.has, user, record)
        return await self._offload(self._library.has_named, user, parse_name(record))

    async def by_hash(self, user: str, hash: str) -> WasmProgram:
        """One that this user has uploaded, or is just uploading, or that is installed."""
        if not is_hash(hash):
            raise UsageError(f"not a hash of 64 hexadecimal digits: {hash[:80]!r}")
        for arriving in self._uploads.going_on():
            if arriving[:2] == (user, hash):
                await self._uploads.join(arriving)
        entry = await self._offload(self._library.locate, user, hash)
        return await self._launchable(user, hash, entry)

    async def by_name(self, user: str, text: str) -> WasmProgram:
        """One that is installed, or that this user has uploaded with a manifest."""
        entry = await self._offload(self._library.resolve, user, parse_name(text))
        return await self._launchable(user, entry.hash, entry)

    async def _upload(self, arriving: Arriving, given: list[bytes]) -> None:
        user, hash, name = arriving
        # Nothing is held under its hash before that is known to be true.
        with self._arrivals.holding(user, arriving, given[0]):
            await self._offload(check_hash, given[0], hash)
        if not given[0].startswith(_BINARY):
            raise ProgramError(f"{hash[:_SHOWN]}: not WebAssembly: it begins with {given[0][:4]!r}")
        with self._arrivals.holding(user, hash, given.pop()) as wasm:
            await self._program(user, hash, wasm)
            add = partial(self._library.add_upload, limit=self._stored_bytes)
            await self._offload(add, user, wasm, hash, name)

    async def _launchable(self, user: str, hash: str, entry: Entry | None) -> WasmProgram:
        """Called as this user calls it."""
        program = await self._program(user, hash)
        return WasmProgram(self._host, program, called=str(entry or hash[:_SHOWN]))

    async def _program(self, user: str, hash: str, wasm: bytes | None = None) -> Program:
        """Of content that this user may launch; `wasm` is it, where it is at hand."""
        found = self._recent.get(hash)
        if found is not None:
            return found
        return await self._loads.do(hash, partial(self._load, user, hash, wasm))

    async def _load(self, user: str, hash: str, wasm: bytes | None) -> Program:
        if wasm is None:
            wasm = await self._offload(self._library.read, hash)
        name = hash[:_SHOWN]
        if await self._host.needs_compiling(wasm):
            async with self._compiling.turn(user):
                await self._host.compile(wasm, name=name)
        async with self._linking:
            program = await self._host.load(wasm, name=name)
        self._recent.put(hash, program, len(wasm))
        return program
