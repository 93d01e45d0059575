"""Who is measured: what each can do, and which of them are there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import attrs

from .processes import START_SECONDS, Process

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
    def process(self) -> Process | None:
        """What is held still while others are measured; None before it is started."""
        ...

    def start(self) -> Row:
        """Load the model; facts. RuntimeError with the reason if that fails."""
        ...

    def decode(self, prompt: Tokens, count: int) -> float:
        """Tokens per second of one stream, after the first token."""
        ...

    def first_token(self, prompt: Tokens, *, seen: bool = False) -> float:
        """Seconds to the first token; `seen`: of what may have been computed before."""
        ...

    def batch(self, prompts: Sequence[Tokens], count: int) -> float:
        """Seconds until all prompts, sent at once, have their tokens."""
        ...

    def agents(self, job: str, specs: Sequence[Row], tools: Row) -> tuple[float, list[Any]]:
        """Seconds until an agent for each spec has done its job, and what each found."""
        ...


@attrs.define(eq=False)
class Pie:
    """Our own process: inferlets in a real engine, and agents."""

    setting: Setting
    name: str = OURS
    process: Process | None = None

    def start(self) -> Row:
        where = [str(self.setting.model), str(self.setting.threads)]
        command = [sys.executable, "-m", "benchmarks.serving.ours", *where]
        self.process = Process(command, self.setting.logs / "pie.log", talks=True)
        facts: Row = self.process.hear(START_SECONDS)
        return facts

    def ask(self, *order: Any) -> Row:
        """An order to the process: a method of `Serving` with its arguments."""
        assert self.process is not None, "start comes first"
        row: Row = self.process.ask(order)
        return row

    def decode(self, prompt: Tokens, count: int) -> float:
        return (count - 1) / float(self.ask("decode", prompt, count)["seconds"])

    def first_token(self, prompt: Tokens, *, seen: bool = False) -> float:
        row = self.ask("again", prompt) if seen else self.ask("many", "python", [prompt], 1)
        return float(row["seconds"])

    def batch(self, prompts: Sequence[Tokens], count: int) -> float:
        return float(self.ask("many", "python", prompts, count)["seconds"])

    def agents(self, job: str, specs: Sequence[Row], tools: Row) -> tuple[float, list[Any]]:
        row = self.ask("agents", job, specs, tools)
        return float(row["seconds"]), list(row["results"])


@attrs.define(eq=False)
class BareLoop:
    """The runner of `pie`'s process in a loop, while no guest is there."""

    pie: Pie
    name: str = BARE

    @property
    def process(self) -> Process | None:
        return self.pie.process

    def start(self) -> Row:
        if self.process is None:
            raise RuntimeError(f"{self.pie.name} did not start")
        return {}

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

    def agents(self, job: str, specs: Sequence[Row], tools: Row) -> tuple[float, list[Any]]:
        raise Unsupported("no guests, no agents")
