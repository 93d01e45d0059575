"""Clients in processes of their own, and the inferlet that they launch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from benchmarks.server.clients import GUEST
from pie.guest.source import read_source
from pie.server.library import ProgramLibrary
from pie.server.program_names import parse_name

from .live import ROOT


@attrs.frozen(eq=False)
class Child:
    """A process that takes lines and gives lines of JSON."""

    process: trio.Process
    _orders: trio.abc.SendStream
    _reports: trio.abc.ReceiveStream

    async def tell(self, line: str) -> None:
        await self._orders.send_all(line.encode())

    async def hear(self) -> Any:
        """What its next line says."""
        line = b""
        while not line.endswith(b"\n"):
            part = await self._reports.receive_some()
            assert part, f"the process ended with {await self.process.wait()}"
            line += part
        return json.loads(line)


@asynccontextmanager
async def child(module: str, *arguments: str) -> AsyncIterator[Child]:
    """Run a module of ours; it is killed at the end."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    async with process.stdin, process.stdout:
        try:
            yield Child(process, process.stdin, process.stdout)
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


def install(folder: Path) -> str:
    """Make the streaming inferlet everybody's, in a server's folder; its hash."""
    wasm = read_source(GUEST)
    library = ProgramLibrary.open(folder / "programs")
    entry = library.install(wasm, parse_name("test/stream@1.0.0"), replace=False)
    library.close()
    return entry.hash
