"""Generating with steps that the engine chains is generating step by step (contract X10)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeAlias

import attrs
import inferlet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pie.ids import EventCode
from pie.testing import HashModel, LinearTiming, SimulatedGpu, run_native, simulated_engine
from pie.testing.determinism import run_simulated

STEP_SECONDS = 1.0


class Stepwise(inferlet.Context):
    """Its steps are its own, so the engine cannot chain them."""

    async def step(self, sampler: inferlet.Sampler) -> int:
        return await super().step(sampler)


def _gpu(**model: Any) -> SimulatedGpu:
    return SimulatedGpu(HashModel(**model), LinearTiming(STEP_SECONDS, 0.0))


SAMPLERS = (
    inferlet.Greedy(),
    inferlet.Multinomial(1.5),
    inferlet.TopP(0.9, 2.0),
    inferlet.TopK(7, 2.0),
    inferlet.MinP(0.05, 2.0),
    inferlet.TopKTopP(9, 0.9, 2.0),
)


@attrs.frozen
class Do:
    """Something done to the context at hand."""

    what: str
    count: int
    sampler: int
    letters: str
    pause: float
    """Steps that the engine has time for before the next piece is asked for."""


ACTIONS = [
    *("generate", "generate", "generate", "stream", "leave", "leave"),
    *("fill", "fork", "back", "rewind", "mask", "drop", "step", "distribution", "flush"),
]
actions = st.builds(
    Do,
    st.sampled_from(ACTIONS),
    st.integers(1, 40),
    st.integers(0, len(SAMPLERS) - 1),
    st.text("abcdefghijklm", min_size=1, max_size=3),
    st.sampled_from([0.0, 0.3, 2.5, 30.0]),
)
Log: TypeAlias = list[Any]


@attrs.define(eq=False)
class Player:
    """Does it, and notes all that can be seen of it."""

    kind: type[inferlet.Context]
    log: Log = attrs.field(factory=list)
    contexts: list[inferlet.Context] = attrs.field(factory=list)

    async def play(self, program: Sequence[Do]) -> Log:
        context = await self.kind.create(await inferlet.get_model())
        context.fill_tokens(b"prompt")
        self.contexts.append(context)
        for do in program:
            await self._one(self.contexts[-1], do)
            for each in self.contexts:
                self.log.append((each.tokens.copy(), each.positions.copy(), each.pending))
                self.log.append(each.pointers)
        for each in reversed(self.contexts):
            self.log.append(await each.step(inferlet.Multinomial(2.0)))
        return self.log

    async def _one(self, context: inferlet.Context, do: Do) -> None:
        length = len(context.tokens)
        match do.what:
            case "fill":
                await context.fill(do.letters)
            case "generate":
                generation = await context.generate(**self._wanted(do))
                self.log.append((generation.text, generation.tokens, generation.finish_reason))
            case "stream" | "leave":
                await self._stream(context, do)
            case "fork":
                child = await context.fork()
                child.__class__ = self.kind
                self.contexts.append(child)
            case "back":
                self.contexts.insert(0, self.contexts.pop())
            case "rewind":
                context.rewind(max(1, length - do.count))
            case "mask":
                context.mask_tokens(do.count, do.count + 5 * len(do.letters))
            case "drop":
                self.log.append(await context.drop_masked_pages())
                if not context.tokens:
                    context.fill_tokens(b"again")
            case "step":
                self.log.append(await context.step(SAMPLERS[do.sampler]))
            case "distribution":
                self.log.append(await context.distribution(top_k=2))
            case "flush":
                await context.flush()

    async def _stream(self, context: inferlet.Context, do: Do) -> None:
        pieces = 0
        async for piece in context.stream(**self._wanted(do)):
            self.log.append((piece, context.tokens.copy(), context.pointers))
            pieces += 1
            if do.pause:
                await inferlet.sleep(do.pause * STEP_SECONDS)
            if do.what == "leave" and pieces == do.count // 4 + 1:
                break

    def _wanted(self, do: Do) -> dict[str, Any]:
        stop = inferlet.stop_tokens(list(do.letters.encode()))
        if do.count % 3 == 0:
            stop |= inferlet.stop_text(do.letters[::-1])
        return {"max_tokens": do.count, "sampler": SAMPLERS[do.sampler], "stop": stop}


def _played(kind: type[inferlet.Context], program: Sequence[Do]) -> Log:
    async def main(_: list[str]) -> str:
        return json.dumps(await Player(kind).play(program))

    async def run() -> str:
        async with simulated_engine(_gpu()) as engine:
            outcome = await run_native(engine, main)
            assert outcome.event.code is EventCode.COMPLETED, outcome.event
            (stats,) = (await engine.stats()).values()
            assert stats.pages_free == stats.pages
            return outcome.text

    log: Log = json.loads(run_simulated(run, seed=1))
    return log


@settings(max_examples=60, deadline=None)
@given(program=st.lists(actions, min_size=1, max_size=7))
def test_any_program_gives_what_it_gives_step_by_step(program: list[Do]) -> None:
    """Contract S3: pieces, tokens, pages, and what is drawn afterwards, whoever ran ahead."""
    assert _played(inferlet.Context, program) == _played(Stepwise, program)


@pytest.mark.long
@settings(max_examples=3_000, deadline=None)
@given(program=st.lists(actions, min_size=1, max_size=12))
def test_any_program_gives_what_it_gives_step_by_step_at_length(program: list[Do]) -> None:
    assert _played(inferlet.Context, program) == _played(Stepwise, program)
