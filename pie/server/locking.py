"""Taking a lock that is mostly free."""

from __future__ import annotations

import trio


async def acquire(lock: trio.Lock | trio.StrictFIFOLock) -> None:
    """Like `lock.acquire`, but where nobody holds it that takes no pass of the loop."""
    try:
        lock.acquire_nowait()
    except trio.WouldBlock:
        await lock.acquire()
