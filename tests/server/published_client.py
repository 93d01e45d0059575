"""The published Python client, as a judge of what the server sends."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import msgpack

from pie.server.frames import LaunchResult, ServerFrame
from pie.server.protocol import encode

BUILD = Path(__file__).parents[2] / ".build"
VERSIONS = ("0.2.0", "0.2.1")
INSTANCE = "6f1c3f0a-0b1e-4c59-8f0e-3c8f3a5f2b11"


@cache
def published(version: str) -> ModuleType:
    """The package `pie_client` of that version, beside the others."""
    name = f"pie_client_{version.replace('.', '_')}"
    folder = BUILD / f"pie-client-{version}" / "pie_client"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Receiver:
    """A published client that is given messages by hand instead of by a WebSocket."""

    def __init__(self, version: str) -> None:
        self._loop = asyncio.new_event_loop()
        self.client: Any = published(version).PieClient("ws://nowhere")

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.close()

    def take(self, frames: Iterable[ServerFrame]) -> None:
        """Process frames as if they had just arrived."""
        for frame in frames:
            message = msgpack.unpackb(encode(frame), raw=False)
            self._loop.run_until_complete(self.client._process_server_message(message))

    def waiting(self, kind: str, corr_id: int) -> asyncio.Future[Any]:
        """The client is waiting for the answer to a request; `kind` as in its own tables."""
        future: asyncio.Future[Any] = self._loop.create_future()
        table = getattr(self.client, f"pending_{kind}requests")
        table[corr_id] = (future, INSTANCE) if kind == "attach_" else future
        return future

    def knows(self, instance_id: str = INSTANCE) -> None:
        """The client has launched the instance."""
        self.waiting("launch_", 1)
        self.take([LaunchResult(corr_id=1, successful=True, message=instance_id)])

    def events(self, instance_id: str = INSTANCE) -> list[tuple[int, str | bytes]]:
        """What it has for the reader of the instance; they are gone from it."""
        queue = self.client.inst_event_queues[instance_id]
        return [queue.get_nowait() for _ in range(queue.qsize())]
