"""What SIGINT and SIGTERM do to work under Trio: it is cancelled, in order."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import trio


def run_interruptible(work: Callable[[], Awaitable[int]]) -> int:
    """The exit code that `work` gives, or that of the first signal nobody inside listens for."""
    return trio.run(_interruptible, work)


async def _interruptible(work: Callable[[], Awaitable[int]]) -> int:
    received, code = 0, 0

    async def listen() -> None:
        nonlocal received
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            received = await anext(signals)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        code = await work()
        nursery.cancel_scope.cancel()
    return 128 + received if received else code
