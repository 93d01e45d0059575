"""A process with one engine that keeps its state, for tests that kill it.

Arguments: the state folder, and whether the guest kills the process after its export.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial

import inferlet
import trio
from inferlet import host

from pie.config import EngineConfig
from pie.engine import open_engine
from pie.programs import NativeProgram
from pie.testing import HashModel, LinearTiming, SimulatedGpu, outcome_of

PREFIX = "a long prefix that many prompts have in common"
FLAG = "prefix is cached"
SIZE = 16


async def cached_prefix(args: list[str]) -> str:
    """The published sequence: a flag in kvs says whether to import or to compute and export."""
    context = await inferlet.Context.create(await inferlet.get_model())
    queue = context.queue
    if await host.store_get(FLAG):
        origin = "imported"
        pages = await host.import_resources(queue, host.KV_PAGE, "prefix")
    else:
        origin = "computed"
        await context.fill(PREFIX)
        await context.flush()
        pages = context.pointers
        await host.export_resources(queue, host.KV_PAGE, pages, "prefix")
        await host.store_set(FLAG, "yes")
    if args:
        os.kill(os.getpid(), signal.SIGKILL)
    length = len(PREFIX) + 1
    work = await host.create_pass(queue)
    await host.input_tokens(work, [ord("!")], [length - 1])
    await host.kv_cache(work, pages, (length - 1) % SIZE + 1)
    await host.output_tokens(work, [0], 0.0)
    result = await host.execute(work)
    await host.ready(await host.pass_pollable(result))
    return f"{origin} {await host.get_tokens(result)}"


async def main(state: str, *arguments: str) -> None:
    config = EngineConfig(state_path=state)
    gpu = SimulatedGpu(HashModel(), timing=LinearTiming(0.001))
    async with open_engine([gpu], config) as engine:
        outcome = await outcome_of(await engine.launch(NativeProgram(cached_prefix), arguments))
        sys.stdout.write(outcome.text)


if __name__ == "__main__":
    trio.run(partial(main, *sys.argv[1:]))
