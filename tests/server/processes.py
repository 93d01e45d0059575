"""`pie serve` as a process of its own, in a folder of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from pie.server.frames import CHUNK
from pie.server.output import hash_of
from tests.cli.support import COMMAND, environment
from tests.model.tiny import Tiny, write_gguf
from tests.model_file import smollm2_path

from .live import COMPILED, ROOT, probe
from .raw import RawClient

PATIENCE_SECONDS = 120.0
"""For what a process has to say or do: loading a model takes some of it."""
SERVES = "serves at ws://127.0.0.1:"


@attrs.define(eq=False)
class ServeProcess:
    """A running `pie serve`, and what it has logged."""

    process: trio.Process
    log: str = ""
    _news: trio.Event = attrs.field(factory=trio.Event)
    _complete: bool = False

    @property
    def port(self) -> int:
        found = re.search(rf"{SERVES}(\d+)", self.log)
        assert found is not None, self.log
        return int(found[1])

    async def logged(self, text: str) -> None:
        """Wait until the log has this."""
        with trio.fail_after(PATIENCE_SECONDS):
            while text not in self.log:
                assert not self._complete, self.log
                await self._news.wait()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for the end of the process and of its log; the exit code."""
        with trio.fail_after(PATIENCE_SECONDS):
            while not self._complete:
                await self._news.wait()
            return await self.process.wait()

    async def read(self) -> None:
        assert self.process.stderr is not None
        async for data in self.process.stderr:
            self.log += data.decode()
            self._tell()
        self._complete = True
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()


def make_home(folder: Path, settings: str = "", *, real: bool = False) -> Path:
    """A PIE_HOME whose server has a tiny model, or the real one."""
    home = folder / "home"
    home.mkdir(mode=0o700)
    (home / "cache").symlink_to(COMPILED.parent)
    model = (
        smollm2_path()
        if real
        else write_gguf(folder / "tiny.gguf", Tiny(hidden=64, head_dim=32, ffn=96))
    )
    (home / "config.toml").write_text(
        f'{settings}\n[[model]]\nname = "{model}"\ndtype = "float32"\npages = 512\n'
    )
    return home


@asynccontextmanager
async def pie_serve(home: Path) -> AsyncIterator[ServeProcess]:
    """Start it; it is killed at the end if it is still there."""
    process = await trio.lowlevel.open_process(
        [*COMMAND, "serve", "--port", "0"],
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=environment(home) | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "sdk")])},
    )
    async with trio.open_nursery() as nursery:
        serving = ServeProcess(process)
        nursery.start_soon(serving.read)
        try:
            yield serving
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            nursery.cancel_scope.cancel()


async def uploaded(client: RawClient) -> str:
    """Upload the probe; its hash."""
    name, corr_id = hash_of(probe()), client.number()
    pieces = range(0, len(probe()), CHUNK)
    for index, start in enumerate(pieces):
        await client.request(
            "upload_program",
            corr_id=corr_id,
            program_hash=name,
            chunk_index=index,
            total_chunks=len(pieces),
            chunk_data=probe()[start : start + CHUNK],
        )
    reply = await client.answer(corr_id)
    assert reply["successful"], reply
    return name


async def half_uploaded(client: RawClient) -> None:
    """Begin an upload and leave it at that."""
    await client.post(
        "upload_program",
        program_hash="0" * 64,
        chunk_index=0,
        total_chunks=2,
        chunk_data=bytes(CHUNK),
    )
