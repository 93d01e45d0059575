"""The one seam for work that would block the loop.

Everything that uses a thread in production (tokenising long texts, compiling, files, SQLite)
goes through an `Offload`; simulated mode runs it inline, where virtual time stands still.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import trio

T = TypeVar("T")


class Offload(Protocol):
    async def __call__(self, function: Callable[..., T], /, *arguments: object) -> T: ...


async def in_thread(function: Callable[..., T], /, *arguments: object) -> T:
    """Run in a worker thread; a cancelled caller still waits for it, so that nothing runs on."""
    return await trio.to_thread.run_sync(function, *arguments)


async def inline(function: Callable[..., T], /, *arguments: object) -> T:
    """Run on the loop: for simulated mode, where no thread may run."""
    await trio.lowlevel.checkpoint()
    return function(*arguments)
