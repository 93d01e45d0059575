"""Two hundred clients at once, some of whom die: all hear the right things, nothing stays."""

from __future__ import annotations

import ctypes
import gc
import os
from collections import Counter
from pathlib import Path

import pytest
import trio

from pie import testing
from pie.guest.calls import GUESTS
from pie.server import limits
from pie.server.server import Server
from pie.testing import HashModel, SimulatedGpu

from .children import child, install
from .live import live_server

pytestmark = pytest.mark.slow

_PATIENCE_SECONDS = 60.0
_NOT_COUNTED = (limits.__name__, testing.__name__)
"""Users are remembered for a moment longer; a simulated device lists its steps."""
_LEFT_IN_FRAMES = 40
"""Of a class: in variables of tasks that wait, such as the pages of the last step. A client that
leaks shows at least sixty times."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


async def test_two_hundred_clients_hear_the_right_things_and_leave_nothing_behind(
    tmp_path: Path,
) -> None:
    program = install(tmp_path)
    async with (
        live_server(tmp_path, SimulatedGpu(HashModel(pages=8192))) as live,
        child("tests.server.crowd", str(live.serving.port), program) as clients,
    ):
        await live.server.programs.by_hash("anybody", program)  # or it would count as a leak
        gc.collect()  # of earlier tests
        at_first = await census(live.server, program)
        resident, objects = {}, {}
        for number in range(1, 6):
            await clients.tell(f"{number}\n")
            assert await clients.hear() == []
            await settled(live.server, program, at_first)
            resident[number], objects[number] = resident_bytes(), objects_of_ours()

    more = objects[5] - objects[2]
    assert {kind: n for kind, n in more.items() if n > _LEFT_IN_FRAMES} == {}
    assert resident[5] == pytest.approx(resident[2], rel=0.05)


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
