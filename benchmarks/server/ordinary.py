"""Ordinary clients in a process of their own: what they feel, line by line.

    python -m benchmarks.server.ordinary PORT PROGRAM

Each line of stdin is a number of seconds, for which clients stream tokens; the answer has the time
between tokens as each client saw it, in seconds, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from itertools import count, pairwise

from .clients import connected, stream

CLIENTS = 8
_TOKENS = 100
"""Of each stream: a client makes one after the other."""


async def measure(port: int, program: str, seconds: float) -> list[float]:
    """Stream for so long, and longer until the last stream ends; wrong tokens fail."""
    gaps: list[float] = []
    until = time.perf_counter() + seconds

    async def client(number: int) -> None:
        async with connected(port, f"ordinary {number}") as connection:
            for turn in count():
                prompt = f"client {number}, turn {turn}"
                heard = await stream(connection, program, prompt, _TOKENS)
                gaps.extend(after - before for before, after in pairwise(heard.times))
                if time.perf_counter() > until:
                    return

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return gaps


def main() -> None:
    port, program = int(sys.argv[1]), sys.argv[2]
    for line in sys.stdin:
        gaps = asyncio.run(measure(port, program, float(line)))
        sys.stdout.write(json.dumps(gaps) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
