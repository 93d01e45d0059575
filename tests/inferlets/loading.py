"""Loading the inferlets that tests run, natively and as components."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from inferlet.entry import Main

from pie.build import build_cached
from pie.guest.interfaces import ALL
from pie.guest.wasm import WasmHost
from pie.programs import WasmProgram

ROOT = Path(__file__).parent.parent.parent
BUILD = ROOT / ".build"


def native_main(folder: Path) -> Main:
    """`main` of the inferlet in `folder`."""
    spec = importlib.util.spec_from_file_location("app", folder / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: Main = module.main
    return main


@asynccontextmanager
async def component_of(folder: Path) -> AsyncIterator[WasmProgram]:
    """The component of the inferlet in `folder`, built and compiled once."""
    host = WasmHost(ALL, cache=BUILD / "compiled")
    try:
        path = build_cached(folder, BUILD / "components")
        yield WasmProgram(host, await host.load(path))
    finally:
        host.close()
