"""Our own process, which is told what to do line by line.

    python -m benchmarks.serving.ours MODEL THREADS

Its first line says what it is; then each line of stdin names a method of `Serving` and its
arguments, `["many", "python", [[1, 2]], 8]`, and is answered by a line of JSON.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import trio

from pie.collector import relax_collector
from pie.devices import device_of
from pie.guest.interfaces import ALL
from pie.guest.wasm import WasmHost
from pie.model import load
from pie.programs import WasmProgram

from .components import BUILD, c_component, python_component
from .recording import RecordingDevice
from .serving import PYTHON, C, open_serving

_METHODS = ("many", "decode", "again", "forget", "agents", "latency")


async def serve(model: str, threads: int) -> None:
    """Obey until stdin ends."""
    host = WasmHost(ALL, cache=BUILD / "compiled")
    try:
        programs = {
            PYTHON: WasmProgram(host, await host.load(python_component())),
            C: WasmProgram(host, await host.load(c_component())),
        }
        began = time.perf_counter()
        runner = load(model, threads=threads)
        loaded = time.perf_counter() - began
        relax_collector()
        async with open_serving(RecordingDevice(device_of(runner)), programs) as serving:
            facts = {"load_seconds": loaded, "runner": type(runner).__name__}
            _say(facts | {"model_bytes": Path(model).stat().st_size})  # noqa: ASYNC240
            async for line in _lines():
                method, *arguments = json.loads(line)
                if method not in _METHODS:
                    raise SystemExit(f"unknown order {method!r}")
                row = await getattr(serving, method)(*arguments)
                _say(row | {"peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})
    finally:
        host.close()


async def _lines() -> AsyncIterator[str]:
    rest = b""
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stream:
        async for data in stream:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield line.decode()


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    trio.run(serve, sys.argv[1], int(sys.argv[2]))
