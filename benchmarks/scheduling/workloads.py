"""What guests do on the simulated machine, and what is measured of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from statistics import median

import attrs
import trio

from pie.config import EngineConfig, Scheduling
from pie.messages import ModelService
from pie.testing import (
    H100,
    LLAMA_3_8B,
    HostCost,
    Machine,
    ModelShape,
    SimulatedGpu,
    run_simulated,
    simulated_engine,
)
from pie.trace.figures import jain

from .guests import Guest

PAGE_SIZE = 64
SEED = 1


@attrs.frozen(kw_only=True)
class Setting:
    """Everything beside the workload."""

    scheduling: Scheduling = attrs.field(factory=Scheduling)
    host_seconds: float = 50e-6
    """Of one processor, per pass: what `python -m benchmarks.host` measures."""
    machine: Machine = H100
    shape: ModelShape = LLAMA_3_8B


@attrs.frozen(kw_only=True)
class Figures:
    """What came out of a run; times in seconds."""

    throughput: float
    """Tokens per second, prompts not counted."""
    seconds: float
    """Until all was done."""
    p50: float
    p99: float
    """Of the times from one token of a decoding guest to the next."""
    batch: float
    """Passes per step on average."""
    steps: int
    fairness: float
    """Jain's index over the guests' (or users') token rates: 1 is even, 1/n is one for all."""


@attrs.define(eq=False)
class Run:
    """A simulated machine, and the guests on it."""

    service: ModelService
    gpu: SimulatedGpu
    random: Random = attrs.field(factory=lambda: Random(SEED))
    guests: list[Guest] = attrs.field(factory=list)

    def guest(self, user: str = "user") -> Guest:
        guest = Guest(self.service, len(self.guests), user)
        self.guests.append(guest)
        return guest


Workload = Callable[[Run], Awaitable[Figures]]


def simulate(workload: Workload, setting: Setting) -> Figures:
    """Run a workload in virtual time; the same figures each time."""

    async def main() -> Figures:
        gpu = SimulatedGpu.of(setting.machine, setting.shape, page_size=PAGE_SIZE)
        config = EngineConfig(scheduling=setting.scheduling)
        host = HostCost(setting.host_seconds)
        async with simulated_engine(gpu, config=config, host=host) as engine:
            return await workload(Run(engine.services[0], gpu))

    return run_simulated(main, seed=SEED)


def looping(guests: int, context: int, tokens: int) -> Workload:
    """Guests that decode one token after the other, as fast as they can."""

    async def one(guest: Guest) -> None:
        await guest.open(context + tokens)
        await guest.decode(context, tokens)
        await guest.close()

    async def workload(run: Run) -> Figures:
        mine = [run.guest() for _ in range(guests)]
        async with trio.open_nursery() as nursery:
            for guest in mine:
                nursery.start_soon(one, guest)
        return figures(run, mine, mine)

    return workload


def prompts(guests: int, context: int, tokens: int, *, clients: int, prompt: int) -> Workload:
    """Decoding guests, and clients that send prompts through the first half of their time.

    A fixed amount of work: what counts is the time until all of it is done. Each client reads a
    prompt, decodes 16 tokens, and starts over, for as many times as make a quarter of the rows
    that a step could have computed while it waited for memory.
    """

    async def one(guest: Guest) -> None:
        await guest.open(context + tokens)
        await guest.decode(context, tokens)
        await guest.close()

    async def client(guest: Guest, times: int) -> None:
        await guest.open(prompt + 16)
        for _ in range(times):
            await guest.run(prompt, prompt)
            await guest.decode(prompt, 16)
        await guest.close()

    async def workload(run: Run) -> Figures:
        mine = [run.guest() for _ in range(guests)]
        others = [run.guest() for _ in range(clients)]
        times = max(1, tokens * 200 // (prompt * clients))
        async with trio.open_nursery() as nursery:
            for guest in mine:
                nursery.start_soon(one, guest)
            await trio.sleep(0.5)
            for guest in others:
                nursery.start_soon(client, guest, times)
        return figures(run, mine, mine)

    return workload


def tools(guests: int, context: int, tokens: int) -> Workload:
    """Every eighth token a guest waits 20 to 200 ms for a tool."""

    async def one(guest: Guest, waits: Sequence[float]) -> None:
        await guest.open(context + tokens)
        for number, wait in enumerate(waits):
            await guest.decode(context + 8 * number, 8)
            await guest.think(wait)
        await guest.close()

    async def workload(run: Run) -> Figures:
        mine = [run.guest() for _ in range(guests)]
        async with trio.open_nursery() as nursery:
            for guest in mine:
                waits = [run.random.uniform(0.02, 0.2) for _ in range(tokens // 8)]
                nursery.start_soon(one, guest, waits)
        return figures(run, mine, mine)

    return workload


def overload(guests: int, queues: int, seconds: float) -> Workload:
    """A user with `guests` looping guests, and one whose single guest has `queues` loops.

    Run it with steps that hold a part of them. Fairness is that between the two users.
    """

    async def loop(guest: Guest, queue: int) -> None:
        while True:
            await guest.run(1, 200, queue)

    async def workload(run: Run) -> Figures:
        many = [run.guest("many") for _ in range(guests)]
        one = run.guest("one")
        for guest in many:
            await guest.open(200)
        await one.open(200, queues)
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for guest in many:
                    nursery.start_soon(loop, guest, 0)
                for queue in range(queues):
                    nursery.start_soon(loop, one, queue)
        taken = [sum(len(guest.times) for guest in many), len(one.times)]
        return attrs.evolve(figures(run, many, many), fairness=jain(taken))

    return workload


def figures(run: Run, decoding: Sequence[Guest], rated: Sequence[Guest]) -> Figures:
    """Throughput is that of the middle half of the tokens: nobody starts, nobody has finished."""
    times = sorted(time for guest in decoding for time in guest.times)
    first, last = len(times) // 4, len(times) * 3 // 4
    gaps = sorted(gap for guest in decoding for gap in guest.latencies[2:])
    passes = [step.passes for step in run.gpu.steps]
    return Figures(
        throughput=(last - first) / (times[last] - times[first]),
        seconds=trio.current_time(),
        p50=gaps[len(gaps) // 2],
        p99=gaps[len(gaps) * 99 // 100],
        batch=sum(passes) / len(passes),
        steps=len(passes),
        fairness=jain([1 / median(guest.latencies) for guest in rated]),
    )
