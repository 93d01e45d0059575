"""Programs are checked before they are kept, compiled once for all, and launched by whom may."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from wasmtime import wat2wasm

from pie.errors import ProgramError, UsageError
from pie.guest.apart import USUAL, CompileLimits
from pie.guest.interfaces import ALL
from pie.guest.wasm import Fuel, Program, WasmHost
from pie.offload import inline
from pie.server.blobs import hash_of
from pie.server.library import ProgramLibrary
from pie.server.program_names import parse_name
from pie.server.programs import Programs, open_programs
from tests.cli.support import returning

LOTS = 1 << 30


def inferlet(text: str) -> bytes:
    """A component of its own for each text."""
    return bytes(wat2wasm(returning(text)))


class GatedHost(WasmHost):
    """Compiles when it is told to, and remembers what; `compile` itself is as in a process."""

    def __init__(self, **options: Any) -> None:
        super().__init__(ALL, preemption=Fuel(units=1000, seconds=0.0), offload=inline, **options)
        self.gate = trio.CapacityLimiter(math.inf)
        self.compiled: list[str] = []
        self.loaded: list[str] = []

    async def needs_compiling(self, source: bytes | Path) -> bool:
        return hash_of(self._bytes(source))[:12] not in self.compiled

    async def compile(self, source: bytes, *, name: str, limits: CompileLimits = USUAL) -> None:
        async with self.gate:
            await trio.lowlevel.checkpoint()
        self.compiled.append(name)

    async def load(self, source: bytes | Path, *, name: str = "") -> Program:
        self.loaded.append(name)
        return await super().load(source, name=name)

    @staticmethod
    def _bytes(source: bytes | Path) -> bytes:
        assert isinstance(source, bytes)
        return source


@asynccontextmanager
async def opened(
    folder: Path, host: WasmHost | None = None, **options: Any
) -> AsyncIterator[Programs]:
    host = host or WasmHost(ALL, preemption=Fuel(units=1000, seconds=0.0), offload=inline)
    library = ProgramLibrary.open(folder)
    chosen: dict[str, Any] = {"stored_bytes": LOTS, "offload": inline} | options
    try:
        async with open_programs(host, library, **chosen) as programs:
            yield programs
    finally:
        library.close()
        host.close()


MANIFEST = '[package]\nname = "me/tool"\nversion = "0.1.0"\n'


async def test_an_upload_can_be_launched_by_its_hash(tmp_path: Path) -> None:
    wasm = inferlet("x")
    key = hash_of(wasm)
    async with opened(tmp_path) as programs:
        assert not await programs.exists("ann", key)
        await programs.upload("ann", wasm, key, None)

        assert await programs.exists("ann", key)
        assert (await programs.by_hash("ann", key)).name == key[:12]
        assert not await programs.exists("bob", key)
        with pytest.raises(UsageError, match=f"no program {key}: upload it first"):
            await programs.by_hash("bob", key)


async def test_a_manifest_gives_an_upload_a_name(tmp_path: Path) -> None:
    wasm = inferlet("x")
    key = hash_of(wasm)
    async with opened(tmp_path) as programs:
        await programs.upload("ann", wasm, key, MANIFEST)

        for record in ("me/tool", "me/tool@0.1.0", f"me/tool@0.1.0#{key}", f"me/tool#{key}", key):
            assert await programs.exists("ann", record), record
        for record in ("tool", "me/tool@0.2", f"me/tool@0.1.0#{hash_of(b'')}", hash_of(b"")):
            assert not await programs.exists("ann", record), record
        named, hashed = await programs.by_name("ann", "me/tool"), await programs.by_hash("ann", key)
        assert named.program is hashed.program
        assert named.name == hashed.name == "me/tool@0.1.0"
        with pytest.raises(UsageError, match="no inferlet me/tool"):
            await programs.by_name("bob", "me/tool")


async def test_what_is_no_name_and_no_hash_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as programs:
        with pytest.raises(UsageError, match=r"wrong name '\.\.'"):
            await programs.exists("ann", "x/..")
        with pytest.raises(UsageError, match="wrong name"):
            await programs.by_name("ann", "0" * 64)
        with pytest.raises(UsageError, match="not a hash of 64 hexadecimal digits: 'x'"):
            await programs.by_hash("ann", "x")


@pytest.mark.parametrize(
    ("wasm", "reason"),
    [
        (b"", "not WebAssembly: it begins with b''"),
        (returning("x").encode(), "not WebAssembly: it begins with b'\\n   '"),
        (b"\0asm\x01\0\0\0", "a core module, not a component"),
        (b"\0asm\x0d\0\x01\0junk", "not a valid component"),
        (bytes(wat2wasm("(component)")), "no inferlet: it does not export inferlet:core/run"),
    ],
)
async def test_what_is_no_inferlet_is_not_kept(wasm: bytes, reason: str, tmp_path: Path) -> None:
    key = hash_of(wasm)
    async with opened(tmp_path) as programs:
        with pytest.raises(ProgramError) as caught:
            await programs.upload("ann", wasm, key, None)

        assert str(caught.value).startswith(f"{key[:12]}: ")
        assert reason in str(caught.value)
        assert not await programs.exists("ann", key)
    assert list((tmp_path / "blobs").iterdir()) == []


async def test_a_wrong_hash_or_manifest_is_found_before_the_work(tmp_path: Path) -> None:
    host = GatedHost()
    wasm, other = inferlet("x"), hash_of(b"other")
    async with opened(tmp_path, host) as programs:
        with pytest.raises(UsageError, match=f"Hash mismatch: expected {other}, got"):
            await programs.upload("ann", wasm, other, None)
        with pytest.raises(UsageError, match="manifest: no table"):
            await programs.upload("ann", wasm, hash_of(wasm), "")
    assert host.compiled == []


async def test_nothing_wrong_can_be_put_under_the_hash_of_another(tmp_path: Path) -> None:
    """Two uploads at once, one of which lies: its bytes must not serve the other."""
    good, evil = inferlet("good"), inferlet("evil")
    key = hash_of(good)
    failed = 0
    async with opened(tmp_path, GatedHost()) as programs:

        async def lie() -> None:
            nonlocal failed
            with pytest.raises(UsageError, match="Hash mismatch"):
                await programs.upload("eve", evil, key, None)
            failed += 1

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(lie)
                nursery.start_soon(programs.upload, "ann", good, key, None)
        assert failed == 3
        assert await programs.exists("ann", key)
    assert (tmp_path / "blobs" / f"{key}.wasm").read_bytes() == good


async def test_an_installed_program_is_found_by_name_and_hash(tmp_path: Path) -> None:
    """Also one that another process installs while the server runs."""
    wasm = inferlet("x")
    async with opened(tmp_path) as programs:
        installer = ProgramLibrary.open(tmp_path)
        entry = installer.install(wasm, parse_name("tool@1"), replace=False)
        installer.close()

        named, hashed = (
            await programs.by_name("ann", "tool"),
            await programs.by_hash("bob", entry.hash),
        )
        assert named.program is hashed.program
        assert named.name == hashed.name == "std/tool@1"


async def test_an_upload_of_the_same_content_is_compiled_once(tmp_path: Path) -> None:
    host = GatedHost()
    wasm = inferlet("x")
    key = hash_of(wasm)
    async with opened(tmp_path, host) as programs:
        host.gate.total_tokens = 1
        async with host.gate, trio.open_nursery() as nursery:
            for user in ("ann", "ann", "bob"):
                nursery.start_soon(programs.upload, user, wasm, key, None)
                nursery.start_soon(programs.upload, user, wasm, key, MANIFEST)
            await wait_all_tasks_blocked()
            host.gate.total_tokens = math.inf
        assert (host.compiled, host.loaded) == ([key[:12]], [key[:12]])
        assert await programs.exists("ann", "me/tool")
        assert await programs.exists("bob", key)


async def test_a_launch_waits_for_an_upload_that_is_under_way(tmp_path: Path) -> None:
    """Another connection of the same user may have begun it; even if that one goes away."""
    host = GatedHost()
    wasm = inferlet("x")
    key = hash_of(wasm)
    launched: list[str] = []
    async with opened(tmp_path, host) as programs:

        async def launch() -> None:
            launched.append((await programs.by_hash("ann", key)).name)

        uploading = trio.CancelScope()

        async def upload() -> None:
            with uploading:
                await programs.upload("ann", wasm, key, None)

        host.gate.total_tokens = 1
        async with trio.open_nursery() as nursery, host.gate:
            nursery.start_soon(upload)
            await wait_all_tasks_blocked()
            nursery.start_soon(launch)
            await wait_all_tasks_blocked()
            uploading.cancel()
            await wait_all_tasks_blocked()
            assert launched == []
        assert launched == [key[:12]]
        assert await programs.exists("ann", key)


async def test_an_upload_that_nobody_waits_for_leaves_nothing(tmp_path: Path) -> None:
    host = GatedHost()
    wasm = inferlet("x")
    key = hash_of(wasm)
    async with opened(tmp_path, host) as programs:
        host.gate.total_tokens = 1
        async with host.gate:
            with trio.move_on_after(1):
                await programs.upload("ann", wasm, key, None)
            await wait_all_tasks_blocked()
        assert host.compiled == []
        assert not await programs.exists("ann", key)
        assert list((tmp_path / "blobs").iterdir()) == []

        await programs.upload("ann", wasm, key, None)
        assert await programs.exists("ann", key)


async def test_one_is_compiled_at_a_time_and_users_take_turns(tmp_path: Path) -> None:
    host = GatedHost()
    made = {name: inferlet(name) for name in ("a0", "a1", "a2", "b0")}
    async with opened(tmp_path, host) as programs:
        host.gate.total_tokens = 1
        async with trio.open_nursery() as nursery, host.gate:
            for name, wasm in made.items():
                nursery.start_soon(programs.upload, name[0], wasm, hash_of(wasm), None)
                await wait_all_tasks_blocked()
            assert host.gate.statistics().tasks_waiting == 1
    names = {hash_of(wasm)[:12]: name for name, wasm in made.items()}
    assert [names[key] for key in host.compiled] == ["a0", "a1", "b0", "a2"]


async def test_after_a_restart_programs_are_loaded_again_on_demand(tmp_path: Path) -> None:
    wasm = inferlet("x")
    key = hash_of(wasm)
    async with opened(tmp_path) as programs:
        await programs.upload("ann", wasm, key, MANIFEST)
    host = GatedHost()
    async with opened(tmp_path, host) as programs:
        assert host.loaded == []
        await programs.by_name("ann", "me/tool")
        await programs.by_hash("ann", key)
    assert host.loaded == [key[:12]]


async def test_a_damaged_program_is_not_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wasm = inferlet("x")
    key = hash_of(wasm)
    async with opened(tmp_path) as programs:
        await programs.upload("ann", wasm, key, None)
    (tmp_path / "blobs" / f"{key}.wasm").write_bytes(inferlet("y"))

    async with opened(tmp_path) as programs:
        with pytest.raises(UsageError, match=f"program {key} is gone, or its file was damaged"):
            await programs.by_hash("ann", key)
        assert not await programs.exists("ann", key)
        await programs.upload("ann", wasm, key, None)
        await programs.by_hash("ann", key)
    assert "was damaged" in caplog.text


async def test_programs_in_memory_are_bounded(tmp_path: Path) -> None:
    host = GatedHost()
    made = [inferlet(name) for name in "abc"]
    keys = [hash_of(wasm) for wasm in made]
    async with opened(tmp_path, host, loaded_bytes=2 << 20) as programs:
        for wasm, key in zip(made, keys, strict=True):
            await programs.upload("ann", wasm, key, None)
        host.loaded.clear()
        running = await programs.by_hash("ann", keys[2])
        await programs.by_hash("ann", keys[1])
        assert host.loaded == []

        await programs.by_hash("ann", keys[0])
        assert host.loaded == [keys[0][:12]]
        again = await programs.by_hash("ann", keys[2])
        assert again.program is running.program, "it is in memory anyway"
        assert host.loaded == [keys[0][:12]]
        del running, again
        await programs.by_hash("ann", keys[2])
        assert len(host.loaded) == 2


async def test_uploads_beyond_the_quota_are_refused(tmp_path: Path) -> None:
    async with opened(tmp_path, stored_bytes=8192) as programs:
        wasm = inferlet("x")
        await programs.upload("ann", wasm, hash_of(wasm), MANIFEST)
        large = inferlet("x" * 9000)

        with pytest.raises(UsageError, match=r"are 20480 bytes, at most 8192 are kept"):
            await programs.upload("ann", large, hash_of(large), None)

        assert await programs.exists("ann", hash_of(wasm))
        assert not await programs.exists("ann", hash_of(large))


async def test_uploads_that_wait_are_bounded(tmp_path: Path) -> None:
    host = GatedHost()
    refused: list[str] = []
    async with opened(tmp_path, host, waiting_bytes=4000) as programs:

        async def upload(user: str, wasm: bytes) -> None:
            try:
                await programs.upload(user, wasm, hash_of(wasm), None)
            except UsageError as error:
                refused.append(str(error))

        host.gate.total_tokens = 1
        async with trio.open_nursery() as nursery, host.gate:
            for number in range(20):
                nursery.start_soon(upload, f"user {number}", inferlet(str(number)))
                await wait_all_tasks_blocked()
            assert refused
        assert all("bytes of uploads wait to be compiled" in text for text in refused)
        assert len(host.compiled) + len(refused) == 20
        await programs.upload("ann", inferlet("x"), hash_of(inferlet("x")), None)


@pytest.mark.slow
async def test_a_process_compiles_for_a_server(tmp_path: Path) -> None:
    """The way it is in production: threads, a cache, and the compiler apart."""
    wasm = inferlet("x")
    key = hash_of(wasm)
    host = WasmHost(ALL, cache=tmp_path / "compiled")
    library = ProgramLibrary.open(tmp_path / "programs")
    async with open_programs(host, library, stored_bytes=LOTS) as programs:
        await programs.upload("ann", wasm, key, None)
        assert not await host.needs_compiling(wasm)
        await programs.by_hash("ann", key)
        bad = bytes(wat2wasm("(component)"))
        with pytest.raises(ProgramError, match=f"{hash_of(bad)[:12]}: no inferlet"):
            await programs.upload("ann", bad, hash_of(bad), None)
    library.close()
    host.close()
