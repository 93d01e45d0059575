"""How many agents fit one H200 with this prompt mix?

    python examples/capacity.py
    python examples/capacity.py --machine H100 --goal-ms 30 --reply 100,300 --tool-seconds 5

Each agent reads a prompt, replies, waits for a tool, reads its result, replies, and so on; after
some turns it starts over. They run in the real engine, on a simulated machine, in virtual time: no
GPU, no weights. The number of agents is doubled until a latency goal is missed, then narrowed
down. What to trust: see "The formulas" in docs/testing.md.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from random import Random

import attrs
import inferlet
import numpy as np
import trio

from pie.config import EngineConfig
from pie.testing import (
    A100,
    H100,
    H200,
    L4,
    LLAMA_3_8B,
    LLAMA_3_70B_FP8,
    HostCost,
    Machine,
    ModelShape,
    SimulatedGpu,
    run_native,
    run_simulated,
    simulated_engine,
)

MACHINES = {machine.name: machine for machine in (H100, H200, A100, L4)}
SHAPES = {shape.name: shape for shape in (LLAMA_3_8B, LLAMA_3_70B_FP8)}
Range = tuple[int, int]


@attrs.frozen(kw_only=True)
class Mix:
    """What agents do; ranges are drawn from evenly, in tokens."""

    prompt: Range = (500, 1500)
    turns: int = 4
    reply: Range = (40, 160)
    tool_result: Range = (100, 400)
    tool_seconds: float = 3.0
    """Of a tool call, on average (exponential)."""


@attrs.define
class Meter:
    """What is seen between `begin` and `end`, in seconds of virtual time."""

    begin: float
    end: float
    firsts: list[float] = attrs.field(factory=list)
    """From a prompt or tool result to the first token of the reply."""
    gaps: list[float] = attrs.field(factory=list)
    """From a token to the next of the same reply."""
    tokens: int = 0

    def token(self, waits: list[float], since: float) -> float:
        """A token came now, after a wait `since`, if any of that is in what is seen; the time now.

        The longest waits reach beyond it: to leave them out would make an overload look good.
        """
        now = trio.current_time()
        if since < self.end and now >= self.begin:
            waits.append(now - since)
            self.tokens += now < self.end
        return now


@attrs.frozen(kw_only=True)
class Row:
    """One line of the table."""

    agents: int
    tokens_per_second: float
    first_p99_ms: float
    p50_ms: float
    p99_ms: float
    pages: int
    """Most in use at once, in per cent of all."""
    moved_out: int


async def agent(mix: Mix, meter: Meter, random: Random, _: list[str]) -> None:
    """An inferlet like any other: it would run as a component, too."""
    await inferlet.sleep(random.uniform(0, 0.8 * meter.begin))
    model = await inferlet.get_model()
    first = random.randrange(mix.turns)  # the others are in the midst of their work as well
    while trio.current_time() < meter.end:
        context = await inferlet.Context.create(model)
        context.fill_tokens(_text(random, mix.prompt))
        for _turn in range(first):
            context.fill_tokens(_text(random, mix.reply) + _text(random, mix.tool_result))
        for turn in range(first, mix.turns):
            if turn > first:
                await inferlet.sleep(random.expovariate(1 / mix.tool_seconds))
                context.fill_tokens(_text(random, mix.tool_result))
            if not await _reply(context, random.randint(*mix.reply), meter):
                return
        await context.release()
        first = 0


async def _reply(context: inferlet.Context, tokens: int, meter: Meter) -> bool:
    """Generate so many tokens; False if that took until the end."""
    since, waits = trio.current_time(), meter.firsts
    for _ in range(tokens):
        context.fill_tokens([await context.step(inferlet.Greedy())])
        since, waits = meter.token(waits, since), meter.gaps
        if since >= meter.end:
            return False
    return True


def _text(random: Random, length: Range) -> bytes:
    return random.randbytes(random.randint(*length))


@attrs.frozen(kw_only=True)
class Question:
    """What is asked of which machine."""

    machine: Machine = H200
    shape: ModelShape = LLAMA_3_8B
    mix: Mix = attrs.field(factory=Mix)
    goal_ms: float = 50.0
    """What the 99th percentile of the time between two tokens must not exceed."""
    first_goal_ms: float = 2000.0
    """Likewise of the time to the first token of a reply."""
    seconds: float = 5.0
    """How long is measured."""
    host_us: float = 70.0
    """What a token costs the host: see `python -m benchmarks.host`."""
    seed: int = 0

    def measure(self, agents: int) -> Row:
        """Let so many agents run."""
        return run_simulated(self._measure, agents, seed=self.seed)

    async def _measure(self, agents: int) -> Row:
        gpu = SimulatedGpu.of(self.machine, self.shape, seed=self.seed, jitter=0.05)
        begin = self._start_seconds(agents)
        meter = Meter(begin, begin + self.seconds)
        config = EngineConfig(max_instances=agents)
        host = HostCost(self.host_us * 1e-6)
        async with simulated_engine(gpu, config=config, host=host) as engine:
            async with trio.open_nursery() as nursery:
                for number in range(agents):
                    random = Random(f"{self.seed} {number}")
                    main = partial(agent, self.mix, meter, random)
                    nursery.start_soon(run_native, engine, main)
            stats = (await engine.stats())[self.shape.name]
        return Row(
            agents=agents,
            tokens_per_second=meter.tokens / self.seconds,
            first_p99_ms=_milliseconds(meter.firsts, 99),
            p50_ms=_milliseconds(meter.gaps, 50),
            p99_ms=_milliseconds(meter.gaps, 99),
            pages=round(100 * stats.pages_peak / stats.pages),
            moved_out=stats.moved_out,
        )

    def _start_seconds(self, agents: int) -> float:
        """How long so many agents take to get going, at a quarter of the speed of reading."""
        tokens = agents * (
            sum(self.mix.prompt) / 2 + self.mix.turns * sum(self.mix.tool_result) / 4
        )
        rate = self.machine.flops * self.machine.flops_share / self.shape.flops_per_row
        return self.seconds + 4 * tokens / rate

    def keeps_goal(self, row: Row) -> bool:
        return row.p99_ms <= self.goal_ms and row.first_p99_ms <= self.first_goal_ms


def _milliseconds(waits: list[float], percent: int) -> float:
    """A percentile; infinite if nobody has got anything."""
    return float(np.percentile(waits or [np.inf], percent, method="nearest")) * 1000


def most(question: Question, first: int, limit: int) -> int:
    """The largest number of agents that keeps the goal, to an eighth; prints each try. 0: none."""
    print("agents  tokens/s  first p99 ms  p50 ms  p99 ms  pages %  moved out  goals")

    def keeps(agents: int) -> bool:
        row = question.measure(agents)
        figures = (
            f"{row.agents:6}  {row.tokens_per_second:8.0f}  {row.first_p99_ms:12.0f}",
            f"{row.p50_ms:6.1f}  {row.p99_ms:6.1f}  {row.pages:7}  {row.moved_out:9}",
            "kept" if question.keeps_goal(row) else "missed",
        )
        print(*figures, sep="  ")
        return question.keeps_goal(row)

    good, bad = 0, first
    while bad <= limit and keeps(bad):
        good, bad = bad, 2 * bad
    while good and bad <= limit and bad - good > max(1, good // 8):
        middle = (good + bad) // 2
        good, bad = (middle, bad) if keeps(middle) else (good, middle)
    return good


def _range(text: str) -> Range:
    low, _, high = text.partition(",")
    return int(low), int(high or low)


def _question(arguments: list[str]) -> tuple[Question, int, int]:
    mix, asked = Mix(), Question()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--machine", choices=MACHINES, default=asked.machine.name)
    parser.add_argument("--model", choices=SHAPES, default=asked.shape.name)
    parser.add_argument("--prompt", type=_range, default=mix.prompt, help="tokens: LOW,HIGH")
    parser.add_argument("--reply", type=_range, default=mix.reply, help="tokens: LOW,HIGH")
    parser.add_argument("--tool-result", type=_range, default=mix.tool_result)
    parser.add_argument("--tool-seconds", type=float, default=mix.tool_seconds)
    parser.add_argument("--turns", type=int, default=mix.turns)
    parser.add_argument("--goal-ms", type=float, default=asked.goal_ms)
    parser.add_argument("--first-goal-ms", type=float, default=asked.first_goal_ms)
    parser.add_argument("--host-us", type=float, default=asked.host_us)
    parser.add_argument("--seconds", type=float, default=asked.seconds)
    parser.add_argument("--seed", type=int, default=asked.seed)
    parser.add_argument("--first", type=int, default=64, help="how many agents to try first")
    parser.add_argument("--limit", type=int, default=4096, help="try no more than this")
    chosen = parser.parse_args(arguments)
    question = Question(
        machine=MACHINES[chosen.machine],
        shape=SHAPES[chosen.model],
        mix=Mix(
            prompt=chosen.prompt,
            turns=chosen.turns,
            reply=chosen.reply,
            tool_result=chosen.tool_result,
            tool_seconds=chosen.tool_seconds,
        ),
        goal_ms=chosen.goal_ms,
        first_goal_ms=chosen.first_goal_ms,
        seconds=chosen.seconds,
        host_us=chosen.host_us,
        seed=chosen.seed,
    )
    return question, chosen.first, chosen.limit


def main(arguments: list[str]) -> None:
    question, first, limit = _question(arguments)
    found = most(question, first, limit)
    print(
        f"{question.machine.name} with {question.shape.name}: {found} agents keep p99 <= "
        f"{question.goal_ms:g} ms between tokens and {question.first_goal_ms:g} ms to the first"
        + (f" (no more than {limit} were tried)" if 2 * found > limit else "")
    )


if __name__ == "__main__":
    main(sys.argv[1:])
