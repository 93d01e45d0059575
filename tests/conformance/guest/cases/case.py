"""What a case is, and what a guest can do in one.

A case is a short program that is compiled into the conformance component and also runs as a
native guest. It names host functions in a short form: `name`, `resource.method`, or `resource`
for a constructor. The names are unique over all interfaces.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

PAGE, SLOT, ADAPTER = 0, 1, 2
"""Resource types."""
PAGE_SIZE = 16


class Host(Protocol):
    """The host under a case: that of a component, or the native one."""

    async def call(self, name: str, /, *arguments: Any) -> Any: ...

    def drop(self, handle: Any, /) -> None: ...


class Guest:
    """Host calls, and the steps that most cases begin with."""

    def __init__(self, host: Host, arguments: list[str]) -> None:
        self.do = host.call
        self.drop = host.drop
        self.arguments = arguments

    async def model(self) -> Any:
        return await self.do("get-model", "simulated")

    async def queue(self) -> Any:
        return await self.do("model.create-queue", await self.model())

    async def wait(self, kind: str, result: Any) -> None:
        """Block until a result resource of this kind is ready."""
        pollable = await self.do(f"{kind}.pollable", result)
        await self.do("pollable.block", pollable)
        self.drop(pollable)

    async def settled(self, queue: Any) -> bool:
        """Whether all earlier work of a queue went well, once it is done."""
        result = await self.do("queue.synchronize", queue)
        await self.wait("synchronization-result", result)
        good: bool = await self.do("synchronization-result.get", result)
        return good

    async def a_pass(
        self, queue: Any, tokens: list[int], pages: list[int], length: int, first: int | None = None
    ) -> Any:
        """A pass that writes the last slots of `length`, at the positions of the same numbers.

        The positions begin at `first` if it is given.
        """
        built = await self.do("create-forward-pass", queue)
        start = length - len(tokens) if first is None else first
        positions = list(range(start, start + len(tokens)))
        await self.do("input-tokens", built, tokens, positions)
        used = pages[: -(-length // PAGE_SIZE)]
        await self.do("kv-cache", built, used, length - PAGE_SIZE * (len(used) - 1))
        return built

    async def run(self, built: Any) -> Any:
        """Execute a pass and wait until it is done; its result."""
        result = await self.do("forward-pass.execute", built)
        await self.wait("forward-pass-result", result)
        return result

    async def last_of(self, built: Any, index: int) -> list[int]:
        """Execute a pass; the ids of the most probable tokens after input `index`."""
        return (await self.tops(built, [index]))[0]

    async def tops(self, built: Any, indices: list[int]) -> list[list[int]]:
        """Execute a pass; of each index, the most probable tokens."""
        await self.do("output-distributions", built, indices, 1.0, 3)
        result = await self.run(built)
        found = await self.do("forward-pass-result.get-distributions", result)
        self.drop(result)
        self.drop(built)
        return [list(ids) for ids, _ in found]

    async def fed(self, queue: Any, tokens: list[int], pages: list[int], length: int) -> list[int]:
        """Run `tokens` into the last slots of `length`; the top tokens after the last one."""
        return await self.last_of(await self.a_pass(queue, tokens, pages, length), len(tokens) - 1)


class Refusal(Exception):
    """A case's `run` returns an error with this text."""


Body: TypeAlias = Callable[[Guest], Awaitable[Any]]


@dataclass(frozen=True)
class Case:
    """A program, what is to come of it, and what it needs around it."""

    name: str
    body: Body
    returns: Any = None
    """What the body returns, as JSON knows it."""
    traps: str = ""
    """The text of the Exception event, if the case is to trap or to fail."""
    messages: tuple[str, ...] = ()
    """What the client is told."""
    blobs: tuple[bytes, ...] = ()
    arguments: tuple[str, ...] = ()
    sends: tuple[str | bytes, ...] = ()
    """What the client sends right after the launch."""
    keeps: int = 0
    """Pages that live on in exports."""
    model: dict[str, Any] = field(default_factory=dict)
    """Of the simulated model, other than usual."""
    limits: dict[str, int] = field(default_factory=dict)
    step_tokens: int = 512
    alone: bool = True
    """Whether it runs in an engine of its own, rather than as a part of a test with several."""


CASES: dict[str, Case] = {}


def case(**facts: Any) -> Callable[[Body], Body]:
    """Register the decorated body as a case, by its name."""

    def register(body: Body) -> Body:
        name = body.__name__
        assert name not in CASES, f"two cases are called {name}"
        CASES[name] = Case(name, body, **facts)
        return body

    return register


def as_text(value: Any) -> str:
    """JSON of what a case returns; bytes as text of one character each."""
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return list(value)
