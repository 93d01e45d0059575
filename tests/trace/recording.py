"""Runs to record: guests of several kinds on a simulated machine, in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import attrs
import inferlet
import trio
from inferlet.entry import Main

from pie.actors.executor import Device
from pie.config import EngineConfig
from pie.engine import Engine, open_engine
from pie.offload import inline
from pie.testing import HashModel, LinearTiming, SimulatedGpu, run_native
from pie.testing.determinism import run_simulated
from pie.trace import tracing
from pie.trace.figures import Service, recorded
from pie.trace.reading import Record, read


@attrs.frozen
class Launch:
    """A guest and when it comes."""

    main: Main
    at: float = 0.0
    user: str = "local"


def a_guest(prompt: int, tokens: int, *, pause: float = 0.0) -> Main:
    """Decodes `tokens` after a prompt; sleeps `pause` seconds in the middle of it."""

    async def main(_: list[str]) -> None:
        context = await inferlet.Context.create(await inferlet.get_model())
        context.fill_tokens([65] * prompt)
        for number in range(tokens):
            context.fill_tokens([await context.step(inferlet.Greedy())])
            if pause and number == tokens // 2:
                await inferlet.sleep(pause)

    return main


def generating(prompt: int, tokens: int, *, leaves: int = 0) -> Main:
    """Lets the engine make its steps; leaves a first stream after so many pieces."""

    async def main(_: list[str]) -> None:
        context = await inferlet.Context.create(await inferlet.get_model())
        context.fill_tokens([65] * prompt)
        if leaves:
            pieces = 0
            async for _piece in context.stream(ignore_eos=True):
                pieces += 1
                if pieces == leaves:
                    break
        await context.generate(max_tokens=tokens, ignore_eos=True)

    return main


def forking(prompt: int, tokens: int, branches: int) -> Main:
    """Shares its prompt with branches that decode side by side."""

    async def decode(context: inferlet.Context) -> None:
        for _ in range(tokens):
            context.fill_tokens([await context.step(inferlet.Greedy())])

    async def main(_: list[str]) -> None:
        context = await inferlet.Context.create(await inferlet.get_model())
        context.fill_tokens([65] * prompt)
        await context.flush()
        forks = [await context.fork() for _ in range(branches)]
        await inferlet.gather(*(decode(fork) for fork in forks))

    return main


def many(seed: int, guests: int) -> list[Launch]:
    """A mix of short and long prompts, pauses and forks of three users."""
    random = Random(seed)
    launches = []
    for number in range(guests):
        prompt, tokens = random.choice((5, 30, 200, 700)), random.randint(3, 30)
        pause = random.choice((0.0, 0.0, 0.25))
        main = a_guest(prompt, tokens, pause=pause)
        if number % 5 == 4:
            main = forking(prompt, tokens, 3)
        elif number % 2:
            main = generating(prompt, tokens, leaves=number % 3)
        launches.append(Launch(main, random.random() * 0.2, f"user {number % 3}"))
    return launches


def linear(pages: int = 4096) -> SimulatedGpu:
    """A machine on which a batch takes 10 ms and a bit for each row."""
    return SimulatedGpu(HashModel(pages=pages), LinearTiming())


def record(
    path: Path,
    launches: Sequence[Launch],
    *,
    device: Callable[[], Device] = linear,
    config: EngineConfig | None = None,
    seed: int = 0,
) -> Record:
    """Run the guests and read back what was traced."""
    settings = config or EngineConfig()

    async def run() -> None:
        async with (
            tracing(path, settings, offload=inline) as tracer,
            open_engine(
                [device()], settings, offload=inline, observe=tracer.model, guests=tracer
            ) as engine,
            trio.open_nursery() as nursery,
        ):
            for launch in launches:
                nursery.start_soon(_launch, engine, launch)

    run_simulated(run, seed=seed)
    return read(path)


async def _launch(engine: Engine, launch: Launch) -> None:
    await trio.sleep(launch.at)
    outcome = await run_native(engine, launch.main, user=launch.user)
    assert outcome.event.code.name == "COMPLETED", outcome.event


def services(record: Record) -> list[Service]:
    """The passes of a record, by `op`."""
    return sorted(recorded(record)[0], key=lambda service: service.op)
