"""Loading the inferlets that tests run, natively and as components."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pie.build import build_cached
from pie.guest.interfaces import ALL
from pie.guest.wasm import WasmHost
from pie.programs import WasmProgram

ROOT = Path(__file__).parent.parent.parent
BUILD = ROOT / ".build"


@asynccontextmanager
async def component_of(folder: Path) -> AsyncIterator[WasmProgram]:
    """The component of the inferlet in `folder`, built and compiled once."""
    host = WasmHost(ALL, cache=BUILD / "compiled")
    try:
        path = build_cached(folder, BUILD / "components")
        yield WasmProgram(host, await host.load(path))
    finally:
        host.close()
