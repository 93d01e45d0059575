"""OpenVINO GenAI's continuous batching, in a process of its own that has its libraries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from benchmarks.serving.contenders import Row, Setting, Tokens, Unsupported
from benchmarks.serving.processes import START_SECONDS, Process

from .places import PEERS

_PYTHON = PEERS / "openvino" / "bin" / "python"
_CHILD = Path(__file__).with_name("openvino_child.py")


@attrs.define(eq=False)
class OpenVino:
    """A library: its calls block, so the first token is a completion of one."""

    setting: Setting
    process: Process | None = attrs.field(default=None, init=False)

    @property
    def name(self) -> str:
        return "OpenVINO GenAI"

    def start(self) -> Row:
        where = [str(self.setting.model), str(self.setting.threads)]
        # Isolated: the module beside the script has the name of the library.
        command = [str(_PYTHON), "-I", str(_CHILD), *where]
        self.process = Process(command, self.setting.logs / "openvino.log", talks=True)
        facts: Row = self.process.hear(START_SECONDS)
        return facts

    def _seconds(self, prompts: Sequence[Tokens], count: int) -> float:
        assert self.process is not None, "start comes first"
        return float(self.process.ask([list(map(list, prompts)), count])["seconds"])

    def decode(self, prompt: Tokens, count: int) -> float:
        first = self._seconds([prompt], 1)
        return (count - 1) / (self._seconds([prompt], count) - first)

    def first_token(self, prompt: Tokens, *, seen: bool = False) -> float:
        return self._seconds([prompt], 1)

    def batch(self, prompts: Sequence[Tokens], count: int) -> float:
        return self._seconds(prompts, count)

    def agents(self, job: str, specs: Sequence[Row], tools: Row) -> tuple[float, list[Any]]:
        raise Unsupported("a library has no endpoint for clients")
