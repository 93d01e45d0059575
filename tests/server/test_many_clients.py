"""Two hundred clients at once, some of whom die: all hear the right things, nothing stays."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from benchmarks.server.clients import GUEST
from pie import testing
from pie.guest.calls import GUESTS
from pie.guest.source import read_source
from pie.server import limits
from pie.server.library import ProgramLibrary
from pie.server.program_names import parse_name
from pie.server.server import Server
from pie.testing import HashModel, SimulatedGpu

from .live import ROOT, Live, live_server

pytestmark = pytest.mark.slow

_PATIENCE_SECONDS = 60.0
_NOT_COUNTED = (limits.__name__, testing.__name__)
"""Users are remembered for a moment longer; a simulated device lists its steps."""
_LEFT_IN_FRAMES = 10
"""Of a class: in variables of tasks that wait. A client that leaks shows at least sixty times."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


async def test_two_hundred_clients_hear_the_right_things_and_leave_nothing_behind(
    tmp_path: Path,
) -> None:
    program = install(tmp_path)
    async with (
        live_server(tmp_path, SimulatedGpu(HashModel(pages=8192))) as live,
        crowd(live, program) as play,
    ):
        await live.server.programs.by_hash("anybody", program)  # or it would count as a leak
        at_first = await census(live.server, program)
        resident, objects = {}, {}
        for number in range(1, 6):
            assert await play(number) == []
            await settled(live.server, program, at_first)
            resident[number], objects[number] = resident_bytes(), objects_of_ours()

    more = objects[5] - objects[2]
    assert {kind: n for kind, n in more.items() if n > _LEFT_IN_FRAMES} == {}
    assert resident[5] == pytest.approx(resident[2], rel=0.05)


def install(folder: Path) -> str:
    """Make the streaming inferlet everybody's, in a server's folder; its hash."""
    wasm = read_source(GUEST)
    library = ProgramLibrary.open(folder / "programs")
    entry = library.install(wasm, parse_name("test/stream@1.0.0"), replace=False)
    library.close()
    return entry.hash


@asynccontextmanager
async def crowd(live: Live, program: str) -> AsyncIterator[Any]:
    """The clients' process; what is given plays a round and tells what went wrong in it."""
    command = [sys.executable, "-m", "tests.server.crowd", str(live.serving.port), program]
    process = await trio.lowlevel.open_process(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    orders, reports = process.stdin, process.stdout

    async def play(number: int) -> list[str]:
        await orders.send_all(f"{number}\n".encode())
        line = b""
        while not line.endswith(b"\n"):
            part = await reports.receive_some()
            assert part, "the clients' process has ended"
            line += part
        problems: list[str] = json.loads(line)
        return problems

    try:
        yield play
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await orders.aclose()
            await reports.aclose()


async def census(server: Server, program: str) -> dict[str, int]:
    """What clients take and has to come back, counted."""
    (stats,) = (await server.engine.stats()).values()
    wasm = await server.programs.by_hash("anybody", program)
    return {
        "guests": wasm.host.guests,
        "handles": sum(len(state.handles.table) for state in GUESTS.values()),
        "pages in use": stats.pages - stats.pages_free,
        "queued": stats.queued,
        "engine instances": len(await server.engine.instances()),
        "server instances": len(server.instances),
        "sessions": len(server.sessions),
        "bytes of uploads": server.uploading.held,
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "files": len(os.listdir("/proc/self/fd")),
    }


async def settled(server: Server, program: str, at_first: dict[str, int]) -> None:
    """Wait until all is as it was at first: what clients leave is cleared up in the background."""
    with trio.move_on_after(_PATIENCE_SECONDS):
        while True:
            if await census(server, program) == at_first:
                return
            await trio.sleep(0.05)
    assert await census(server, program) == at_first


def objects_of_ours() -> Counter[str]:
    """What there is of each class of the product."""
    gc.collect()
    kinds = (type(each) for each in gc.get_objects())
    modules = ((str(kind.__module__), kind.__qualname__) for kind in kinds)
    return Counter(
        f"{module}.{name}"
        for module, name in modules
        if module.startswith("pie.") and not module.startswith(_NOT_COUNTED)
    )


def resident_bytes() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
