"""Programs for a context, drawn at random, and guests that play them and note what can be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import attrs
import inferlet
from hypothesis import strategies as st

from pie.testing import Fault, HashModel, LinearTiming, SimulatedGpu

STEP_SECONDS = 1 / 128

multi_steps = 1
"""That the device of `gpu_of` makes in one call."""


class Stepwise(inferlet.Context):
    """Its steps are its own, so the engine cannot chain them."""

    async def step(self, sampler: inferlet.Sampler) -> int:
        return await super().step(sampler)


def gpu_of(faults: Mapping[int, Fault] | None = None, **model: Any) -> SimulatedGpu:
    runner = HashModel(multi_steps=multi_steps, **model)
    return SimulatedGpu(runner, LinearTiming(STEP_SECONDS, 0.0), faults=faults or {})


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
    *("fill", "read", "fork", "back", "rewind", "mask", "drop", "step", "distribution", "flush"),
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


async def begun(kind: type[inferlet.Context], model: inferlet.Model) -> inferlet.Context:
    context = await kind.create(model)
    context.fill_tokens(b"prompt")
    return context


@attrs.define(eq=False)
class Player:
    """Does it, and notes all that can be seen of it."""

    contexts: list[inferlet.Context]
    names: bool = True
    """Whether pages are noted by name, else their number: names are given in the order of time."""
    log: Log = attrs.field(factory=list)
    most: int = 0
    """Pages that its last context has had at once."""

    @property
    def kind(self) -> type[inferlet.Context]:
        return type(self.contexts[0])

    async def play(self, program: Sequence[Do]) -> Log:
        for do in program:
            await self._one(self.contexts[-1], do)
            for each in self.contexts:
                self.log.append((each.tokens.copy(), each.positions.copy(), each.pending))
                self._note_pages(each)
        for each in reversed(self.contexts):
            self.log.append(await each.step(inferlet.Multinomial(2.0)))
            self._note_pages(each)
        return self.log

    def _note_pages(self, context: inferlet.Context) -> None:
        pages = context.pointers
        self.most = max(self.most, len(pages))
        self.log.append(pages if self.names else len(pages))

    async def _one(self, context: inferlet.Context, do: Do) -> None:
        length = len(context.tokens)
        match do.what:
            case "fill":
                await context.fill(do.letters)
            case "read":
                context.fill_tokens(do.letters.encode() * do.count)
                await context.flush()
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
            self.log.append((piece, context.tokens.copy()))
            self._note_pages(context)
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
