"""What the host costs when the model answers at once: microseconds per pass and token.

    python -m benchmarks.actors [--quick] [--json OUT]

Guests decode one token per pass on a model without arithmetic. `wat` guests are hand-written
components (nine host calls and three drops per token), `native` ones coroutines on the guest
library. One mailbox hop (an `ask` of an idle actor) is measured in the same run as the unit.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import inferlet
import numpy as np
import trio
from rich.console import Console
from rich.table import Table

from pie.batch import Batch, BatchResult
from pie.engine import Engine, open_engine
from pie.guest.interfaces import ALL
from pie.guest.wasm import WasmHost
from pie.mailbox import Ask, ask
from pie.programs import NativeProgram, WasmProgram
from pie.testing import HashModel, SimulatedGpu, outcome_of

DECODE = Path(__file__).parents[1] / "tests" / "guests" / "decode.wat"


@attrs.define(eq=False)
class InstantGpu(SimulatedGpu):
    """Answers the letter `a` at once."""

    async def run(self, batch: Batch) -> BatchResult:
        await trio.lowlevel.checkpoint()
        count = len(batch.sampled_rows)
        return BatchResult(
            tokens=np.full(count, 97, dtype=np.int32), sampled_finite=np.ones(count, dtype=np.bool_)
        )


async def _native(args: list[str]) -> str:
    context = await inferlet.Context.create(await inferlet.get_model())
    context.fill_tokens([65])
    for _ in range(int(args[0])):
        context.fill_tokens([await context.step(inferlet.Greedy())])
    return "done"


async def hop_microseconds(count: int) -> float:
    """Processor time of one `ask` of an idle actor."""
    address, mailbox = trio.open_memory_channel[Ask[int]](math.inf)

    async def actor() -> None:
        async for question in mailbox:
            question.reply.answer(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor)
        began = time.process_time()
        for _ in range(count):
            await ask(address, Ask[int]())
        took = time.process_time() - began
        address.close()
    return took / count * 1e6


async def _all(engine: Engine, program: Any, guests: int, tokens: int) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(guests):
            nursery.start_soon(outcome_of, await engine.launch(program, [str(tokens)]))


async def measure_latency(worst: list[float]) -> None:
    """How late a task runs that wants to run every 2 ms."""
    while True:
        due = time.perf_counter() + 0.002
        await trio.sleep(0.002)
        worst.append(time.perf_counter() - due)


async def measure(program: Any, guests: int, tokens: int) -> dict[str, float]:
    """Processor time per token of `guests` guests, start included, and the loop's latency."""
    late: list[float] = []
    async with open_engine([InstantGpu(HashModel(pages=1 << 16))]) as engine:
        await _all(engine, program, 1, 4)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(measure_latency, late)
            began = time.process_time()
            await _all(engine, program, guests, tokens)
            took = time.process_time() - began
            nursery.cancel_scope.cancel()
        stats = (await engine.stats())["simulated"]
    late.sort()
    return {
        "us_per_token": took / (guests * tokens) * 1e6,
        "mean_batch": stats.passes / stats.batches,
        "latency_ms_p50": late[len(late) // 2] * 1e3,
        "latency_ms_p95": late[int(len(late) * 0.95)] * 1e3,
    }


async def run(quick: bool) -> dict[str, Any]:
    host = WasmHost(ALL)
    programs: dict[str, Any] = {
        "native": NativeProgram(_native),
        "wat": WasmProgram(host, await host.load(DECODE)),
    }
    tokens = 16 if quick else 64
    sizes = (1, 64) if quick else (1, 64, 500, 2000)
    results: dict[str, Any] = {"hop_us": await hop_microseconds(2000)}
    for name, program in programs.items():
        for guests in sizes:
            results[f"{name} x{guests}"] = await measure(program, guests, tokens)
    host.close()
    return results


def _show(results: dict[str, Any]) -> None:
    hop = results["hop_us"]
    table = Table("guests", "µs/token", "hops/token", "mean batch", "latency p50 / p95 ms")
    for name, row in results.items():
        if isinstance(row, dict):
            table.add_row(
                name,
                f"{row['us_per_token']:.0f}",
                f"{row['us_per_token'] / hop:.1f}",
                f"{row['mean_batch']:.1f}",
                f"{row['latency_ms_p50']:.1f} / {row['latency_ms_p95']:.1f}",
            )
    console = Console()
    console.print(f"one mailbox hop: {hop:.1f} µs")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    job: Callable[..., Awaitable[dict[str, Any]]] = run
    results = trio.run(job, options.quick)
    _show(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
