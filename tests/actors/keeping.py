"""Schedulers that keep their exports: each bench on the same folder is a new engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from pie.actors.persistence import StateFolder
from pie.ids import InstanceId, Pointer
from pie.messages import (
    ExportPointers,
    ImportPointers,
)

from .scheduling import PAGE, Bench, a_pass, scheduler_bench, tokens_of

T = TypeVar("T")

SIZE = 16
PREFIX = list(range(100, 140))
PAGES = 3


def files(state: StateFolder) -> list[Path]:
    return sorted(path for path in state.path.rglob("*") if path.is_file())


async def prefill(bench: Bench, me: InstanceId) -> tuple[Pointer, ...]:
    pages = await bench.allocate(me, PAGES)
    await tokens_of(bench.submit(me, a_pass(PREFIX, pages, len(PREFIX))))
    return pages


async def continuation(bench: Bench, me: InstanceId, pages: tuple[Pointer, ...]) -> list[int]:
    """What follows the prefix and one more token."""
    return (await tokens_of(bench.submit(me, a_pass([7], pages, len(PREFIX) + 1))))[0]


async def export(bench: Bench, me: InstanceId, name: str = "prefix") -> None:
    pages = await prefill(bench, me)
    assert await bench.service.ask(ExportPointers(me, PAGE, pages, name))


async def import_(bench: Bench, me: InstanceId, name: str = "prefix") -> tuple[Pointer, ...]:
    pages = await bench.service.ask(ImportPointers(me, PAGE, name))
    assert pages is not None
    return pages


async def write_one(state: StateFolder, user: str = "local") -> Path:
    """Run an engine that exports the prefix; its file."""
    async with scheduler_bench(state=state) as bench:
        await export(bench, bench.open(user=user))
    (path,) = files(state)
    return path


async def expected() -> list[int]:
    async with scheduler_bench() as bench:
        me = bench.open()
        return await continuation(bench, me, await prefill(bench, me))


@contextmanager
def warnings_of(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    found: list[str] = []
    with caplog.at_level(logging.WARNING, "pie.actors.export_files"):
        yield found
        found += [record.getMessage() for record in caplog.records]


class Gate:
    """An `Offload` that holds back calls of one name until it is opened."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.opened = trio.Event()

    async def __call__(self, function: Callable[..., T], /, *arguments: object) -> T:
        if function.__name__ == self.name:
            await self.opened.wait()
        return function(*arguments)
