"""A batch equals running its passes one after the other (contract K5, Q1, R8)."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from pie.batch import Batch, floats, ints
from pie.ids import InstanceId, Pointer, Priority, ResourceKind
from pie.messages import (
    ExportPointers,
    ForwardPass,
    ImportPointers,
    PassResult,
    Rank,
    ReleaseExport,
    Sample,
    SubmitPass,
)
from pie.testing import HashModel

from .scheduling import Bench, a_pass, scheduler_bench

SIZE = 4
PAGES = 6
QUEUES = 3


@attrs.frozen
class Step:
    """One submission of a random program."""

    instance: int
    queue: int
    priority: Priority
    pages: tuple[int, ...]
    last: int
    count: int
    token: int
    embed: bool


FILL = Step(0, 0, Priority.NORMAL, (0, 1, 2), SIZE, 3 * SIZE, 7, embed=False)
"""What is in the shared pages."""


@st.composite
def steps(draw: st.DrawFn) -> Step:
    pages = draw(st.lists(st.integers(0, PAGES - 1), min_size=1, max_size=4, unique=True))
    last = draw(st.integers(1, SIZE))
    length = (len(pages) - 1) * SIZE + last
    return Step(
        instance=draw(st.integers(0, 1)),
        queue=draw(st.integers(0, QUEUES - 1)),
        priority=draw(st.sampled_from(Priority)),
        pages=tuple(pages),
        last=last,
        count=draw(st.integers(1, length)),
        token=draw(st.integers(0, 255)),
        embed=draw(st.booleans()),
    )


def _work(step: Step) -> ForwardPass:
    length = (len(step.pages) - 1) * SIZE + step.last
    inputs = [(step.token + i) % 256 for i in range(step.count)]
    stored: tuple[tuple[int, Pointer], ...] = ()
    if step.embed:
        inputs[0] = -1
        stored = ((step.count - 1, Pointer(0)),)
    every = [Sample(i, 0.0) for i in range(step.count)]
    pages = [Pointer(page) for page in step.pages]
    return a_pass(inputs, pages, length, outputs=[*every, Rank(0, 1.0, 2)], stored=stored)


async def _prepare(bench: Bench) -> list[InstanceId]:
    """Two instances of one user: both have pages 0..5, of which 0..2 are shared by an export."""
    first, second = bench.open(0), bench.open(1)
    await bench.allocate(first, PAGES)
    for instance in (first, second):
        await bench.allocate(instance, 1, ResourceKind.EMBEDDING)
    bench.submit(first, _work(FILL))
    shared = tuple(Pointer(page) for page in range(3))
    await bench.service.ask(ExportPointers(first, ResourceKind.KV_PAGE, shared, "shared"))
    await bench.service.ask(ImportPointers(second, ResourceKind.KV_PAGE, "shared"))
    await bench.allocate(second, PAGES - 3)
    bench.service.tell(ReleaseExport(first, ResourceKind.KV_PAGE, "shared"))
    return [first, second]


async def _run(program: Sequence[Step], *, step_tokens: int, at_once: bool) -> list[object]:
    model = HashModel(page_size=SIZE, pages=3 * PAGES, embedding_slots=4)
    async with scheduler_bench(model, step_tokens=step_tokens) as bench:
        instances = await _prepare(bench)
        submitted: list[SubmitPass] = []
        for step in program:
            message = bench.submit(
                instances[step.instance], _work(step), queue=step.queue, priority=step.priority
            )
            submitted.append(message)
            if not at_once:
                await message.reply.wait()
        return [await message.reply.wait() for message in submitted]


class Plain:
    """The contract in its plainest form: one pass at a time, copies made at once."""

    def __init__(self) -> None:
        self._model = HashModel(page_size=SIZE, pages=100, embedding_slots=4)
        own = iter(range(3, 100))
        self._maps = [[0, 1, 2, *(next(own) for _ in range(PAGES - 3))] for _ in range(2)]
        self._fresh = own
        unshared, self._maps[1] = self._maps[1], []
        self.run(FILL)
        self._maps[1] = unshared

    def run(self, step: Step) -> PassResult:
        numbers = self._maps[step.instance]
        other = self._maps[1 - step.instance]
        length = (len(step.pages) - 1) * SIZE + step.last
        copies = []
        for page in step.pages[(length - step.count) // SIZE :]:
            if numbers[page] in other:
                copies.append((numbers[page], next(self._fresh)))
                numbers[page] = copies[-1][1]
        inputs = [(step.token + i) % 256 for i in range(step.count)]
        slots = [step.instance] if step.embed else []
        sampled = range(step.count)
        result = self._model.run(
            Batch(
                tokens=ints([-1, *inputs[1:]] if step.embed else inputs),
                positions=ints(range(length - step.count, length)),
                row_starts=ints([0, step.count]),
                pages=ints([numbers[page] for page in step.pages]),
                page_starts=ints([0, len(step.pages)]),
                lengths=ints([length]),
                embedding_rows=ints([0] if step.embed else []),
                embedding_slots=ints(slots),
                copy_sources=ints([source for source, _ in copies]),
                copy_targets=ints([target for _, target in copies]),
                stored_rows=ints([step.count - 1] if step.embed else []),
                stored_slots=ints(slots),
                sampled_rows=ints(sampled),
                temperature=floats([0.0] * step.count),
                top_k=ints([0] * step.count),
                top_p=floats([1.0] * step.count),
                min_p=floats([0.0] * step.count),
                uniform=floats([0.0] * step.count),
                ranked_rows=ints([0]),
                ranked_temperature=floats([1.0]),
                ranked_k=ints([2]),
            )
        )
        ranked = result.ranked_ids.tolist(), result.ranked_probabilities.tolist()
        return PassResult(result.tokens.tolist(), [ranked])


def _check(program: Sequence[Step], step_tokens: int) -> None:
    def run(at_once: bool, budget: int) -> list[object]:
        async def main() -> list[object]:
            return await _run(program, step_tokens=budget, at_once=at_once)

        return trio.run(main, clock=MockClock(autojump_threshold=0))

    plain = Plain()
    wanted = [plain.run(step) for step in program]
    assert run(False, 512) == wanted
    assert run(True, step_tokens) == wanted


@settings(max_examples=150, deadline=None)
@given(program=st.lists(steps(), min_size=2, max_size=12), step_tokens=st.integers(2, 40))
def test_any_program_gives_the_same_results_all_at_once_as_one_by_one(
    program: list[Step], step_tokens: int
) -> None:
    _check(program, step_tokens)


@pytest.mark.long
@settings(max_examples=10_000, deadline=None)
@given(program=st.lists(steps(), min_size=2, max_size=20), step_tokens=st.integers(2, 40))
def test_any_program_gives_the_same_results_at_length(
    program: list[Step], step_tokens: int
) -> None:
    _check(program, step_tokens)
