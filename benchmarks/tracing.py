"""What a trace costs: processor time per token with one and without, in pairs.

    python -m benchmarks.tracing [--guests N] [--tokens N] [--pairs N] [--json OUT]

The model answers at once, so what is measured is the host: a real one takes longer for its
tokens, and the trace costs the same. `loop` is the engine's thread, `all` has the thread that
writes the file too. The guests are those of `benchmarks.host`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import attrs
import trio
from rich.console import Console
from rich.table import Table

from benchmarks.host.guests import PAGE_SIZE, Crowd, loaded
from benchmarks.host.instant import InstantDevice
from benchmarks.host.machine import Usage
from pie.collector import relax_collector
from pie.config import EngineConfig
from pie.engine import GuestProgram, open_engine
from pie.testing import HashModel
from pie.trace import tracing

KINDS = ("native", "wat")


@attrs.frozen
class Cost:
    """Microseconds of processor time per token, and bytes written."""

    loop: float
    all: float
    bytes: float


async def run(program: GuestProgram, guests: int, tokens: int, file: Path | None) -> Cost:
    """All guests from their launch to their end, traced to `file`."""
    config = EngineConfig(max_instances=guests + 1)
    pages = (guests + 1) * (tokens // PAGE_SIZE + 2)
    device = InstantDevice(HashModel(pages=pages, page_size=PAGE_SIZE))
    began = Usage.now()
    async with AsyncExitStack() as stack:
        tracer = None
        if file is not None:
            tracer = await stack.enter_async_context(tracing(file, config))
        observe = None if tracer is None else tracer.model
        engine = await stack.enter_async_context(
            open_engine([device], config, observe=observe, guests=tracer)
        )
        crowd = Crowd(engine, program, device, [])
        async with trio.open_nursery() as nursery:
            await crowd.launch(nursery, guests, tokens=tokens)
    used = Usage.now() - began
    assert len(crowd.texts) == guests, "every guest finishes"
    count = guests * tokens / 1e6
    size = 0 if file is None else file.stat().st_size  # noqa: ASYNC240  # nothing runs beside
    return Cost(used.main / count, used.process / count, size / (guests * tokens))


async def measure(kind: str, guests: int, tokens: int, pairs: int) -> dict[str, float]:
    """Medians over pairs of runs, one with a trace and one without, in turns."""
    off: list[Cost] = []
    on: list[Cost] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        async with loaded(kind, guests + 1) as program:
            await run(program, guests, 4, file)
            for number in range(pairs):
                for traced in (number % 2 == 0, number % 2 != 0):
                    cost = await run(program, guests, tokens, file if traced else None)
                    (on if traced else off).append(cost)
    ratios = list(zip(on, off, strict=True))
    return {
        "off_us": statistics.median(cost.all for cost in off),
        "on_us": statistics.median(cost.all for cost in on),
        "loop_ratio": statistics.median(a.loop / b.loop for a, b in ratios),
        "all_ratio": statistics.median(a.all / b.all for a, b in ratios),
        "bytes_per_token": statistics.median(cost.bytes for cost in on),
    }


async def measure_all(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """By kind of guest."""
    sizes = options.guests, options.tokens, options.pairs
    return {kind: await measure(kind, *sizes) for kind in KINDS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guests", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    relax_collector()  # as a process that serves does
    results = trio.run(measure_all, options)
    table = Table("guests", "µs/token off", "on", "ratio, loop", "ratio, all", "bytes/token")
    for kind, row in results.items():
        table.add_row(
            kind,
            f"{row['off_us']:.0f}",
            f"{row['on_us']:.0f}",
            f"{row['loop_ratio']:.2f}",
            f"{row['all_ratio']:.2f}",
            f"{row['bytes_per_token']:.0f}",
        )
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
