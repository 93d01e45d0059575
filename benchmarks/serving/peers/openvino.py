"""OpenVINO GenAI's continuous batching, in a process of its own that has its libraries."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from benchmarks.serving.contenders import Row, Setting, Tokens
from benchmarks.serving.processes import Process

from .places import PEERS, why_missing

PYTHON = PEERS / "openvino" / "bin" / "python"
_CHILD = Path(__file__).with_name("openvino_child.py")


@attrs.define(eq=False)
class OpenVino:
    """A library: its calls block, so the first token is a completion of one."""

    setting: Setting
    process: Process | None = attrs.field(default=None, init=False)

    @property
    def name(self) -> str:
        return "OpenVINO GenAI"

    @property
    def endpoint(self) -> None:
        return None

    @staticmethod
    def missing() -> str | None:
        return why_missing("openvino", PYTHON)

    def start(self) -> Row:
        began = time.perf_counter()
        where = [str(self.setting.model), str(self.setting.threads)]
        # Isolated: the module beside the script has the name of the library.
        command = [str(PYTHON), "-I", str(_CHILD), *where]
        self.process = Process(command, self.setting.logs / "openvino.log", talks=True)
        facts: Row = self.process.hear()
        return facts | {"ready_seconds": time.perf_counter() - began}

    def pause(self) -> None:
        assert self.process is not None
        self.process.pause()

    def resume(self) -> None:
        assert self.process is not None
        self.process.resume()

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()

    def _ask(self, prompts: Sequence[Tokens], count: int) -> dict[str, Any]:
        assert self.process is not None
        row: dict[str, Any] = self.process.ask([list(map(list, prompts)), count])
        return row

    def decode(self, prompt: Tokens, count: int) -> float:
        first = float(self._ask([prompt], 1)["seconds"])
        return (count - 1) / (float(self._ask([prompt], count)["seconds"]) - first)

    def first_token(self, prompt: Tokens, *, seen: bool = False) -> float:
        return float(self._ask([prompt], 1)["seconds"])

    def batch(self, prompts: Sequence[Tokens], count: int) -> float:
        return float(self._ask(prompts, count)["seconds"])
