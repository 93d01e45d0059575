"""llama.cpp's own server, built for this machine from the source that llama-cpp-python ships."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from benchmarks.serving.contenders import Row

from .places import PEERS
from .server import Server

_BINARY = PEERS / "llama.cpp" / "build" / "bin" / "llama-server"
_SLOTS = 32
_SLOT_TOKENS = 1536
"""The longest text of an agent has about half as many."""


@attrs.define(eq=False)
class LlamaCpp(Server):
    """With continuous batching and its prompt cache, which are on by default."""

    @property
    def name(self) -> str:
        return "llama.cpp"

    def command(self, port: int) -> tuple[Sequence[str], Mapping[str, str]]:
        threads = str(self.setting.threads)
        options = [
            "-t",
            threads,
            "-tb",
            threads,
            "-c",
            str(_SLOT_TOKENS * _SLOTS),
            "-np",
            str(_SLOTS),
        ]
        options += ["-b", "2048", "-ub", "512", "--host", "127.0.0.1", "--port", str(port)]
        return [str(_BINARY), "-m", str(self.setting.model), *options], {}

    def extra(self) -> Row:
        return {"cache_prompt": True}

    def constrained(self, schema: Mapping[str, Any]) -> Row:
        return {"json_schema": schema}
