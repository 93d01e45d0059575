"""Who is measured: what each can do, and which of them are there."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import attrs

from .endpoint import Endpoint
from .processes import Process

Row = dict[str, Any]
Tokens = Sequence[int]

OURS, BARE = "Pie, inferlets", "Pie, bare loop"


class Unsupported(Exception):
    """A contender has no such thing; the text says what."""


@attrs.frozen
class Setting:
    """The same for all."""

    model: Path
    """A GGUF file."""
    cores: tuple[int, ...]
    logs: Path
    features: frozenset[str] = frozenset()
    """Of the processor."""

    @property
    def threads(self) -> int:
        return len(self.cores)


class Contender(Protocol):
    """One way to run the model. Everything is greedy and goes on past the end of turn."""

    @property
    def name(self) -> str: ...

    @property
    def endpoint(self) -> Endpoint | None:
        """Where clients can reach it, of a server."""
        ...

    def start(self) -> Row:
        """Load the model; facts. RuntimeError with the reason if that fails."""
        ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def stop(self) -> None: ...

    def decode(self, prompt: Tokens, count: int) -> float:
        """Tokens per second of one stream, after the first token."""
        ...

    def first_token(self, prompt: Tokens, *, seen: bool = False) -> float:
        """Seconds to the first token; `seen`: of what may have been computed before."""
        ...

    def batch(self, prompts: Sequence[Tokens], count: int) -> float:
        """Seconds until all prompts, sent at once, have their tokens."""
        ...


@attrs.define(eq=False)
class Pie:
    """Our own process: inferlets in a real engine, and agents."""

    setting: Setting
    name: str = OURS
    process: Process | None = None

    @property
    def endpoint(self) -> None:
        return None

    def start(self) -> Row:
        began = time.perf_counter()
        where = [str(self.setting.model), str(self.setting.threads)]
        command = [sys.executable, "-m", "benchmarks.serving.ours", *where]
        self.process = Process(command, self.setting.logs / "pie.log", talks=True)
        facts: Row = self.process.hear()
        return facts | {"ready_seconds": time.perf_counter() - began}

    def ask(self, *order: Any) -> Row:
        """An order to the process: a method of `Serving` with its arguments."""
        assert self.process is not None, "start comes first"
        row: Row = self.process.ask(order)
        return row

    def pause(self) -> None:
        assert self.process is not None
        self.process.pause()

    def resume(self) -> None:
        assert self.process is not None
        self.process.resume()

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()

    def decode(self, prompt: Tokens, count: int) -> float:
        return (count - 1) / float(self.ask("decode", prompt, count)["seconds"])

    def first_token(self, prompt: Tokens, *, seen: bool = False) -> float:
        row = self.ask("again", prompt) if seen else self.ask("many", "python", [prompt], 1)
        return float(row["seconds"])

    def batch(self, prompts: Sequence[Tokens], count: int) -> float:
        return float(self.ask("many", "python", prompts, count)["seconds"])


@attrs.define(eq=False)
class BareLoop:
    """The runner of `pie`'s process in a loop, while no guest is there."""

    pie: Pie
    name: str = BARE

    @property
    def endpoint(self) -> None:
        return None

    def start(self) -> Row:
        return {}

    def pause(self) -> None:
        self.pie.pause()

    def resume(self) -> None:
        self.pie.resume()

    def stop(self) -> None:
        """The process is not ours."""

    def _seconds(self, prompts: Sequence[Tokens], count: int) -> float:
        self.pie.ask("forget")
        return float(self.pie.ask("many", "bare", prompts, count)["seconds"])

    def decode(self, prompt: Tokens, count: int) -> float:
        self.pie.ask("forget")
        row = self.pie.ask("many", "bare", [prompt], count)
        return 1 / float(row["pace"]["period"])

    def first_token(self, prompt: Tokens, *, seen: bool = False) -> float:
        if seen:
            raise Unsupported("the loop keeps nothing")
        return self._seconds([prompt], 1)

    def batch(self, prompts: Sequence[Tokens], count: int) -> float:
        return self._seconds(prompts, count)
