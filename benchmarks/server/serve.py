"""The server that is measured: a process that is told what to do line by line.

    python -m benchmarks.server.serve FOLDER [--step SECONDS]

Its first line says where it serves which program. Then, per line of stdin: `usage` gives its
processor time, `clear` ends all instances and waits until nobody is connected, `profile` begins
a profile, and `layers` ends it.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import trio

from benchmarks.host.layers import Profile
from pie.collector import relax_collector
from pie.config import EngineConfig, Limits
from pie.guest.interfaces import ALL
from pie.guest.source import read_source
from pie.guest.wasm import WasmHost
from pie.server.authentication import Authentication
from pie.server.config import Auth, ServerConfig
from pie.server.library import ProgramLibrary
from pie.server.logs import configure_logging
from pie.server.program_names import parse_name
from pie.server.protocol import MAX_TEXT
from pie.server.server import Server
from pie.server.serving import serving
from pie.server.users import Users
from pie.testing import HashModel, LinearTiming, SimulatedGpu

from .clients import GUEST
from .hostile import allow_many_files

_PAGES = 65_536
_AGAIN_SECONDS = 0.02


async def serve(folder: Path, step: float) -> None:
    """Serve with the usual settings until stdin ends."""
    device = SimulatedGpu(HashModel(pages=_PAGES), LinearTiming(step, 0.0))
    host = WasmHost(ALL, cache=folder / "compiled")
    try:
        library = ProgramLibrary.open(folder / "programs")
        wasm = read_source(GUEST)
        entry = library.install(wasm, parse_name("bench/stream@1.0.0"), replace=False)
        relax_collector()
        async with serving(
            (device,),
            host=host,
            library=library,
            authentication=Authentication(Auth.NONE, Users(folder / "users")),
            config=ServerConfig(port=0),
            engine_config=EngineConfig(limits=Limits(max_message_bytes=MAX_TEXT)),
        ) as running:
            await running.server.programs.by_hash("anybody", entry.hash)
            _say({"port": running.port, "program": entry.hash})
            await _obey(running.server)
            await running.drain(0.0)
        library.close()
    finally:
        host.close()


async def _obey(server: Server) -> None:
    profile = Profile()
    async for line in _lines():
        match line:
            case "usage":
                _say({"process": time.process_time(), "main": time.thread_time()})
            case "clear":
                await _clear(server)
                _say({})
            case "profile":
                profile = Profile()
                profile.start()
                _say({})
            case "layers":
                profile.stop()
                _say({"seconds": profile.seconds, "samples": profile.samples})
            case _:
                raise SystemExit(f"unknown order {line!r}")


async def _clear(server: Server) -> None:
    while True:
        for hosted in server.instances.of():
            await server.terminate(hosted, "the measurement is over")
        if not (server.sessions or server.instances.of()):
            return
        await trio.sleep(_AGAIN_SECONDS)


async def _lines() -> AsyncIterator[str]:
    rest = b""
    async with trio.lowlevel.FdStream(sys.stdin.fileno()) as stream:
        async for data in stream:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield line.decode()


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--step", type=float, default=0.02)
    options = parser.parse_args()
    # As `pie serve` does, to a file.
    configure_logging(as_json=False, level=logging.INFO)
    allow_many_files()
    trio.run(serve, options.folder, options.step)


if __name__ == "__main__":
    main()
