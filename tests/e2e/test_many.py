"""Many components at once: they all finish, share batches, and leave nothing behind."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import trio

from pie.engine import Engine, open_engine
from pie.guest.wasm import WasmHost
from pie.ids import EventCode
from pie.programs import WasmProgram
from pie.testing import HashModel, LinearTiming, SimulatedGpu, outcome_of
from tests.inferlets.loading import ROOT, component_of

from .real import real_engine, run_all

DECODE = ROOT / "tests" / "guests" / "decode.wat"
COMPLETION = ROOT / "inferlets" / "text-completion"


def _mappings() -> int:
    return Path("/proc/self/maps").read_text().count("\n")


async def _nothing_is_left(engine: Engine, host: WasmHost) -> None:
    for stats in (await engine.stats()).values():
        assert stats.pages_free == stats.pages
        assert stats.instances == stats.queued == stats.waiting == 0
    assert await engine.instances() == []
    assert host.guests == 0
    assert all(service.activity.moving == 0 for service in engine.services)


@pytest.mark.slow
async def test_five_hundred_components_finish_beside_one_that_never_ends() -> None:
    """100 made by componentize-py and 400 written by hand, in one process on one thread."""
    gpu = SimulatedGpu(HashModel(pages=8192), timing=LinearTiming(0.005))
    async with component_of(COMPLETION) as python, open_engine([gpu]) as engine:
        host = python.host
        decode = WasmProgram(host, await host.load(DECODE))
        warm = (["--prompt", "hello", "--max-tokens", "2"], 1)
        await run_all(engine, python, [warm])
        await run_all(engine, decode, [(["2"], 1)])
        gc.collect()
        mappings = _mappings()
        spinner = await engine.launch(decode, ["1", "spin"])

        finished: list[str] = []

        async def many(program: WasmProgram, count: int, arguments: list[str]) -> None:
            outcomes = await run_all(engine, program, [(arguments, 1)] * count)
            finished.extend(outcome.text for outcome in outcomes)

        async with trio.open_nursery() as nursery:
            words = ["--prompt", "hello", "--max-tokens", "12", "--ignore-eos"]
            nursery.start_soon(many, python, 100, words)
            nursery.start_soon(many, decode, 400, ["24"])
        assert [d.instance for d in await engine.instances()] == [spinner.instance]
        await engine.terminate(spinner.instance, "enough")
        ended = (await outcome_of(spinner)).event
        await _nothing_is_left(engine, host)
        gc.collect()
        left = _mappings() - mappings

    assert len(finished) == 500
    assert len(set(finished)) == 2
    assert (ended.code, ended.text) == (EventCode.ABORTED, "enough")
    assert left < 100  # one guest alone has six or seven


@pytest.mark.slow
async def test_sixty_four_components_share_the_batches_of_the_real_model() -> None:
    """Prompts of different lengths, stop conditions off: decode steps hold nearly all of them."""
    count = ["--raw", "--max-tokens", "64", "--ignore-eos", "--prompt"]
    jobs = [([*count, "once upon a time " * (4 + i % 2) + f"in {i}"], i) for i in range(64)]
    async with component_of(COMPLETION) as program, real_engine() as engine:
        outcomes = await run_all(engine, program, jobs)
        (stats,) = (await engine.stats()).values()
        await _nothing_is_left(engine, program.host)

    assert len({outcome.text for outcome in outcomes}) == 64
    # All but a few, and fewer still where other processes take the processors.
    assert stats.decode_rows / stats.decode_batches >= 48
