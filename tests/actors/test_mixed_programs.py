"""Passes with masks, vectors and adapters between commands, new pages and shared ones (K5, Q1, R8).

As in `test_batched_is_sequential`, a random program gives the same results submitted all at once,
one by one, and run by a plain interpreter; here also when pages have to move to host memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from pie.batch import Batch, UploadAdapter, floats, ints
from pie.ids import InstanceId, Pointer, Priority, QueueId, ResourceKind
from pie.mailbox import Ask
from pie.messages import (
    ExportPointers,
    ForwardPass,
    FreePointers,
    ImportPointers,
    PassResult,
    ReleaseExport,
    RunCommand,
    Sample,
)
from pie.testing import HashModel

from .scheduling import PAGE, Bench, a_pass, scheduler_bench

SIZE = 4
HELD = 4
"""Pages of each of the two instances; they have two embedding slots and an adapter slot, too."""
LARGE, SMALL = 40, 14
"""Pages of the pool: plenty, or enough for the two alone, so that others have to move out."""
THIRD = 10
"""Pages of a third instance, the youngest, that only wants to find them again in the end."""
EMBEDDING, ADAPTER = ResourceKind.EMBEDDING, ResourceKind.ADAPTER


@attrs.frozen
class Run:
    """A pass."""

    instance: int
    queue: int
    priority: Priority
    pages: tuple[int, ...]
    length: int
    count: int
    token: int
    masks: tuple[tuple[int, ...], ...] | None
    reads: int | None
    """The embedding slot that is its first input."""
    stores: int | None
    """The embedding slot that its last hidden state goes to."""
    adapter: bool

    @property
    def inputs(self) -> list[int]:
        tokens = [(self.token + i) % 256 for i in range(self.count)]
        return tokens if self.reads is None else [-1 - self.reads, *tokens[1:]]


@attrs.frozen
class Renew:
    """Free a page and allocate another, which has the same pointer and reads as zeros."""

    instance: int
    page: int


@attrs.frozen
class Share:
    """Export a page; the other instance imports it in place of its own of that pointer."""

    instance: int
    page: int


@attrs.frozen
class Upload:
    """Change the instance's adapter, on some queue."""

    instance: int
    queue: int
    data: bytes


@attrs.frozen
class Read:
    """Read the instance's embedding slots, on some queue."""

    instance: int
    queue: int


Action: TypeAlias = Run | Renew | Share | Upload | Read

instances = st.integers(0, 1)
queues = st.integers(0, 2)
pages = st.integers(0, HELD - 1)
slots = st.none() | st.integers(0, 1)


@st.composite
def runs(draw: st.DrawFn) -> Run:
    listed = draw(st.lists(pages, min_size=1, max_size=3, unique=True))
    length = (len(listed) - 1) * SIZE + draw(st.integers(1, SIZE))
    count = draw(st.integers(1, length))
    masks: list[tuple[int, ...]] = []
    for visible in range(length - count + 1, length + 1):
        ends = sorted(draw(st.sets(st.integers(0, visible - 1), max_size=3)))
        edges = [0, *ends, visible]
        masks.append(tuple(b - a for a, b in pairwise(edges)))
    return Run(
        instance=draw(instances),
        queue=draw(queues),
        priority=draw(st.sampled_from(Priority)),
        pages=tuple(listed),
        length=length,
        count=count,
        token=draw(st.integers(0, 255)),
        masks=tuple(masks) if draw(st.booleans()) else None,
        reads=draw(slots),
        stores=draw(slots),
        adapter=draw(st.booleans()),
    )


others = st.one_of(
    st.builds(Renew, instances, pages),
    st.builds(Share, instances, pages),
    st.builds(Upload, instances, queues, st.sampled_from([b"hash one", b"hash two"])),
    st.builds(Read, instances, queues),
)
programs = st.lists(st.one_of(runs(), runs(), others), min_size=2, max_size=14)


def _work(run: Run) -> ForwardPass:
    return a_pass(
        run.inputs,
        [Pointer(page) for page in run.pages],
        run.length,
        outputs=[Sample(i, 0.0) for i in range(run.count)],
        masks=run.masks,
        stored=() if run.stores is None else ((run.count - 1, Pointer(run.stores)),),
        adapter=Pointer(0) if run.adapter else None,
    )


@attrs.define(eq=False)
class Guests:
    """Two instances of one user at a scheduler."""

    bench: Bench
    ids: list[InstanceId]

    @classmethod
    async def open(cls, bench: Bench) -> Guests:
        guests = cls(bench, [bench.open(0), bench.open(1)])
        for instance in guests.ids:
            for kind, count in ((PAGE, HELD), (EMBEDDING, 2), (ADAPTER, 1)):
                await bench.allocate(instance, count, kind)
        return guests

    async def begin(self, action: Action) -> Ask[Any] | None:
        """Do it, or submit it: then the question that is answered when it is done."""
        me = self.ids[action.instance]
        match action:
            case Run():
                return self.bench.submit(
                    me, _work(action), queue=action.queue, priority=action.priority
                )
            case Renew(page=page):
                self.bench.service.tell(FreePointers(me, PAGE, (Pointer(page),)))
                assert await self.bench.allocate(me, 1) == (page,)
                return None
            case Share(page=page):
                await self._share(me, self.ids[1 - action.instance], Pointer(page))
                return None
            case Upload(data=data):
                return self._command(me, action.queue, ADAPTER, UploadAdapter(0, data))
            case Read():
                return self._command(me, action.queue, EMBEDDING, None)

    async def _share(self, me: InstanceId, other: InstanceId, page: Pointer) -> None:
        service = self.bench.service
        await service.ask(ExportPointers(me, PAGE, (page,), "shared"))
        service.tell(FreePointers(other, PAGE, (page,)))
        assert await service.ask(ImportPointers(other, PAGE, "shared")) == (page,)
        service.tell(ReleaseExport(me, PAGE, "shared"))

    def _command(
        self, me: InstanceId, queue: int, kind: ResourceKind, command: UploadAdapter | None
    ) -> RunCommand:
        pointers = (Pointer(0),) if command else (Pointer(0), Pointer(1))
        message = RunCommand(
            instance=me,
            queue=QueueId(queue),
            priority=Priority.NORMAL,
            kind=kind,
            pointers=pointers,
            writes=command is not None,
            command=command,
        )
        self.bench.service.tell(message)
        return message


def _plain(answer: Any) -> object:
    """Something to compare."""
    if isinstance(answer, PassResult):
        return answer.tokens
    return answer.tolist() if hasattr(answer, "tolist") else None


async def _run(
    program: Sequence[Action], *, step_tokens: int, at_once: bool, pool: int
) -> tuple[list[object], int]:
    model = HashModel(page_size=SIZE, pages=pool, embedding_slots=4)
    async with scheduler_bench(model, step_tokens=step_tokens, host_pages=LARGE) as bench:
        guests = await Guests.open(bench)
        third, mine = await _third(bench)
        asked: list[Ask[Any]] = []
        for action in program:
            question = await guests.begin(action)
            if question is not None:
                asked.append(question)
                if not at_once:
                    await question.reply.wait()
        answers = [_plain(await question.reply.wait()) for question in asked]
        answers.append(_plain(await bench.submit(*_reading(third, mine)).reply.wait()))
        return answers, (await bench.stats()).moved_out


async def _third(bench: Bench) -> tuple[InstanceId, tuple[Pointer, ...]]:
    """An instance that has filled its pages."""
    third = bench.open(2)
    mine = await bench.allocate(third, THIRD)
    tokens = range(THIRD * SIZE - 1)
    await bench.submit(third, a_pass(tokens, mine, len(tokens), outputs=())).reply.wait()
    return third, mine


def _reading(third: InstanceId, mine: Sequence[Pointer]) -> tuple[InstanceId, ForwardPass]:
    return third, a_pass([1], mine, THIRD * SIZE)


class Plain:
    """The contract in its plainest form: one thing at a time, copies made at once."""

    def __init__(self) -> None:
        self._model = HashModel(page_size=SIZE, pages=400, embedding_slots=4)
        self._fresh = iter(range(400))
        self._maps = [[next(self._fresh) for _ in range(HELD)] for _ in range(2)]

    def do(self, action: Action) -> list[object]:
        """What it answers, if it is something that does."""
        mine, other = self._maps[action.instance], self._maps[1 - action.instance]
        match action:
            case Run():
                return [self._run(action, mine, other)]
            case Renew(page=page):
                mine[page] = next(self._fresh)
                return []
            case Share(page=page):
                other[page] = mine[page]
                return []
            case Upload(data=data):
                self._model.adapt(UploadAdapter(action.instance, data))
                return [None]
            case Read():
                first = 2 * action.instance
                return [self._model.read_embeddings(ints([first, first + 1])).tolist()]

    def _run(self, run: Run, mine: list[int], other: list[int]) -> list[int]:
        copies = []
        for page in run.pages[(run.length - run.count) // SIZE :]:
            if mine[page] in other:
                copies.append((mine[page], next(self._fresh)))
                mine[page] = copies[-1][1]
        first = 2 * run.instance
        masks = [] if run.masks is None else list(run.masks)
        starts = [sum(map(len, masks[:i])) for i in range(len(masks) + 1)]
        result = self._model.run(
            Batch(
                tokens=ints([max(token, -1) for token in run.inputs]),
                positions=ints(range(run.length - run.count, run.length)),
                row_starts=ints([0, run.count]),
                pages=ints([mine[page] for page in run.pages]),
                page_starts=ints([0, len(run.pages)]),
                lengths=ints([run.length]),
                embedding_rows=ints([] if run.reads is None else [0]),
                embedding_slots=ints([] if run.reads is None else [first + run.reads]),
                masked_rows=ints(range(len(masks))),
                mask_runs=ints([length for mask in masks for length in mask]),
                mask_starts=ints(starts),
                adapters=ints([run.instance] if run.adapter else []),
                noisy=ints([0] if run.adapter else []).astype(bool),
                noise_seeds=ints([0] if run.adapter else []).astype("int64"),
                copy_sources=ints([source for source, _ in copies]),
                copy_targets=ints([target for _, target in copies]),
                stored_rows=ints([] if run.stores is None else [run.count - 1]),
                stored_slots=ints([] if run.stores is None else [first + run.stores]),
                sampled_rows=ints(range(run.count)),
                temperature=floats([0.0] * run.count),
                top_k=ints([0] * run.count),
                top_p=floats([1.0] * run.count),
                min_p=floats([0.0] * run.count),
                uniform=floats([0.0] * run.count),
            )
        )
        tokens: list[int] = result.tokens.tolist()
        return tokens


def _answers(
    program: Sequence[Action], *, step_tokens: int = 512, at_once: bool, pool: int = LARGE
) -> tuple[list[object], int]:
    async def main() -> tuple[list[object], int]:
        return await _run(program, step_tokens=step_tokens, at_once=at_once, pool=pool)

    return trio.run(main, clock=MockClock(autojump_threshold=0))


def _check(program: Sequence[Action], step_tokens: int) -> None:
    plain = Plain()
    wanted = [answer for action in program for answer in plain.do(action)]
    assert _answers(program, at_once=False)[0][:-1] == wanted
    assert _answers(program, step_tokens=step_tokens, at_once=True)[0][:-1] == wanted


@settings(max_examples=150, deadline=None)
@given(program=programs, step_tokens=st.integers(2, 30))
def test_any_mixed_program_gives_the_same_results_all_at_once_as_one_by_one(
    program: list[Action], step_tokens: int
) -> None:
    _check(program, step_tokens)


@settings(max_examples=100, deadline=None)
@given(program=programs, step_tokens=st.integers(2, 30))
def test_any_mixed_program_gives_the_same_results_when_pages_have_to_move(
    program: list[Action], step_tokens: int
) -> None:
    """Contract R5: pages of the idle and the young go to host memory and back."""
    wanted, _ = _answers(program, at_once=False)
    for at_once in (False, True):
        found, moved = _answers(program, step_tokens=step_tokens, at_once=at_once, pool=SMALL)
        assert found == wanted
        assert moved


@pytest.mark.long
@settings(max_examples=10_000, deadline=None)
@given(program=programs, step_tokens=st.integers(2, 30))
def test_any_mixed_program_gives_the_same_results_at_length(
    program: list[Action], step_tokens: int
) -> None:
    _check(program, step_tokens)
