"""Components on the real model: throughput, batches, and how long the loop is held.

    python -m benchmarks.concurrent [--guests 64] [--tokens 64] [--json OUT]

Runs the text-completion component alone, then `--guests` of them at once, then once more beside a
guest in an endless loop, which is cancelled at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import trio
from rich.console import Console
from rich.table import Table

from pie.build import build_cached
from pie.devices import ThreadedModel
from pie.engine import Engine, open_engine
from pie.guest.interfaces import ALL
from pie.guest.wasm import WasmHost
from pie.model import load
from pie.model.store import pull
from pie.programs import WasmProgram
from pie.testing import outcome_of

from .latency import Late, milliseconds, watch_latency

ROOT = Path(__file__).parents[1]
DECODE = ROOT / "tests" / "guests" / "decode.wat"
BUILD = ROOT / ".build"


async def _completions(engine: Engine, program: WasmProgram, guests: int, tokens: int) -> None:
    """Prompts within a fifth of one length, stop conditions off."""
    arguments = ["--raw", "--ignore-eos", "--max-tokens", str(tokens), "--prompt"]
    async with trio.open_nursery() as nursery:
        for number in range(guests):
            prompt = "once upon a time " * (8 + number % 4) + str(number)
            launched = await engine.launch(program, [*arguments, prompt], seed=number)
            nursery.start_soon(outcome_of, launched)


async def measure(
    model: ThreadedModel, program: WasmProgram, guests: int, tokens: int, spinner: Any = None
) -> dict[str, float]:
    late: list[Late] = []
    async with open_engine([model]) as engine:
        extra = await engine.launch(spinner, ["1", "spin"]) if spinner else None
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_latency, late)
            await _completions(engine, program, guests, tokens)
            nursery.cancel_scope.cancel()
        seconds = time.perf_counter() - began
        (stats,) = (await engine.stats()).values()
        row = {
            "tokens_per_second": guests * tokens / seconds,
            "decode_batch": stats.decode_rows / max(1, stats.decode_batches),
            "model_share": stats.busy_seconds / seconds,
        }
        if extra is not None:
            began = time.perf_counter()
            await engine.terminate(extra.instance)
            row["cancel_ms"] = (time.perf_counter() - began) * 1e3
    return row | milliseconds("latency", [look.seconds for look in late])


async def run(guests: int, tokens: int) -> dict[str, dict[str, float]]:
    home = Path(os.environ.get("PIE_HOME", BUILD / "home"))
    host = WasmHost(ALL, cache=BUILD / "compiled")
    folder = ROOT / "inferlets" / "text-completion"
    program = WasmProgram(host, await host.load(build_cached(folder, BUILD / "components")))
    spinner = WasmProgram(host, await host.load(DECODE))
    model = ThreadedModel(load(pull("smollm2-135m-instruct", home), dtype="float32"))
    try:
        return {
            "1 guest": await measure(model, program, 1, tokens),
            f"{guests} guests": await measure(model, program, guests, tokens),
            f"{guests} + 1 spinning": await measure(model, program, guests, tokens, spinner),
        }
    finally:
        host.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guests", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = trio.run(partial(run, options.guests, options.tokens))
    table = Table("", *results)
    for name in next(reversed(results.values())):
        values = (row.get(name) for row in results.values())
        table.add_row(name, *("" if value is None else f"{value:.2f}" for value in values))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
