"""Several steps in one call are, bit for bit, as many calls; and end where they should."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pie.batch import Batch, InitializeAdapter, floats, ints
from pie.model import load
from pie.multistep import MultiStep
from tests.model.support import Pass, greedy, make_batch, ranked, sampled
from tests.model.tiny import Tiny, write_gguf
from tests.multi_steps import await_end

pytest.importorskip("llvmlite")

from pie.kernels.cpu.target import detect
from pie.model.packed.runner import PackedRunner

pytestmark = pytest.mark.skipif(detect() is None, reason="no packed kernels for this machine")

SHAPE = Tiny(hidden=64, heads=6, kv_heads=2, head_dim=32, ffn=96)
PAGES = 96
EVERY_PAGE = ints(range(PAGES))
ROOM = 12
"""Pages of a row, of several."""
ADAPTER = InitializeAdapter(
    slot=2, rank=4, alpha=8.0, population_size=4, mu_fraction=0.5, initial_sigma=0.2
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", SHAPE)


def packed(path: Path, threads: int, kv: Any = "auto") -> Iterator[PackedRunner]:
    runner = load(path, pages=PAGES, embedding_slots=8, threads=threads, kv=kv)
    assert isinstance(runner, PackedRunner)
    yield runner
    runner.close()


@pytest.fixture(scope="module", params=[1, 2, 3])
def runner(request: pytest.FixtureRequest, path: Path) -> Iterator[PackedRunner]:
    yield from packed(path, request.param)


@pytest.fixture(scope="module")
def two(path: Path) -> Iterator[PackedRunner]:
    """Two threads."""
    yield from packed(path, 2)


@pytest.fixture(scope="module")
def eight_bits(path: Path) -> Iterator[PackedRunner]:
    """K and V in 8 bits."""
    yield from packed(path, 2, "int8")


def fill(runner: PackedRunner, lengths: Sequence[int], room: int) -> None:
    """Give rows a past of `lengths` less the token that comes."""
    pasts = [
        Pass(tokens=[(31 * i + 7 * n) % 250 for i in range(length - 1)], pages=pages_of(n, room))
        for n, length in enumerate(lengths)
        if length > 1
    ]
    runner.run(make_batch(pasts))


def pages_of(row: int, room: int) -> range:
    return range(row * room, (row + 1) * room)


def decoding(
    lengths: Sequence[int], count: int, *, room: int = ROOM, temperature: float = 0.0, **more: Any
) -> MultiStep:
    """Steps of one row each of `lengths`, after `fill`."""
    rows = len(lengths)
    uniform = np.random.default_rng(count).random((count, rows), np.float32)
    passes = [
        Pass(tokens=[5 + n], pages=pages_of(n, room), length=length)
        for n, length in enumerate(lengths)
    ]
    asked = sampled(range(rows), temperature=temperature) | {"uniform": uniform[0]}
    batch = make_batch(passes, **asked, **more)
    return MultiStep(
        batch=batch, uniform=uniform, stops=ints(), stop_starts=np.zeros(rows + 1, np.int32)
    )


def with_stops(steps: MultiStep, stops: Sequence[Sequence[int]]) -> MultiStep:
    """The same, not run, with the stop tokens of each row."""
    return MultiStep(
        batch=steps.batch,
        uniform=steps.uniform,
        stops=ints([token for row in stops for token in row]),
        stop_starts=ints(np.cumsum([0, *map(len, stops)]).tolist()),
    )


def again(steps: MultiStep) -> MultiStep:
    """The same, not run."""
    return attrs.evolve(steps)


def one_by_one(runner: PackedRunner, steps: MultiStep) -> None:
    """The law: single steps, and `MultiStep.finish`."""
    goes_on = True
    while goes_on:
        result = runner.run(steps.batch_of(steps.done))
        goes_on = steps.finish(result.tokens, result.sampled_finite)


def at_once(runner: PackedRunner, steps: MultiStep) -> None:
    runner.start_steps(steps)
    await_end(runner)


def is_lawful(runner: PackedRunner, steps: MultiStep) -> MultiStep:
    """Run `steps` both ways from the same pages: their tokens, ends and pages are the same."""
    before = runner.read_pages(EVERY_PAGE)
    expected = again(steps)
    one_by_one(runner, expected)
    after = runner.read_pages(EVERY_PAGE)
    runner.write_pages(EVERY_PAGE, before)
    at_once(runner, steps)
    assert steps.done == expected.done
    assert steps.tokens.tolist() == expected.tokens.tolist()
    assert steps.finite.tolist() == expected.finite.tolist()
    assert np.array_equal(runner.read_pages(EVERY_PAGE), after)
    return steps


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("lengths", [[1], [10, 16, 33, 1, 47]])
def test_several_steps_are_as_many_calls(
    runner: PackedRunner, lengths: list[int], temperature: float
) -> None:
    fill(runner, lengths, ROOM)
    steps = is_lawful(runner, decoding(lengths, 40, temperature=temperature))
    assert steps.done == 40
    assert len(set(steps.tokens[:, 0].tolist())) > 3


def test_a_long_row_is_split_from_where_it_is_long(runner: PackedRunner) -> None:
    fill(runner, [505], 40)
    assert is_lawful(runner, decoding([505], 20, room=40)).done == 20


def test_pages_of_bytes_too(eight_bits: PackedRunner) -> None:
    fill(eight_bits, [10, 30], ROOM)
    assert is_lawful(eight_bits, decoding([10, 30], 25)).done == 25


def test_a_row_keeps_its_adapter(two: PackedRunner) -> None:
    two.adapt(ADAPTER)
    fill(two, [10, 30], ROOM)
    uses: dict[str, Any] = {
        "adapters": ints([-1, 2]),
        "noisy": np.array([False, True]),
        "noise_seeds": np.array([0, 7]),
    }
    before = two.read_pages(EVERY_PAGE)
    with_it = is_lawful(two, decoding([10, 30], 25, **uses)).tokens
    two.write_pages(EVERY_PAGE, before)
    without = is_lawful(two, decoding([10, 30], 25)).tokens
    assert np.array_equal(with_it[:, 0], without[:, 0])
    assert not np.array_equal(with_it[:, 1], without[:, 1])


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 100), min_size=1, max_size=8),
    count=st.integers(1, 40),
    temperature=st.sampled_from([0.0, 1.0]),
    stops=st.lists(st.lists(st.integers(0, 260), max_size=6), min_size=8, max_size=8),
)
def test_whatever_the_rows(
    two: PackedRunner,
    lengths: list[int],
    count: int,
    temperature: float,
    stops: list[list[int]],
) -> None:
    fill(two, lengths, ROOM)
    steps = decoding(lengths, count, temperature=temperature)
    is_lawful(two, with_stops(steps, stops[: len(lengths)]))


def test_a_stop_token_of_the_row_ends_it(runner: PackedRunner) -> None:
    fill(runner, [10, 20], ROOM)
    before = runner.read_pages(EVERY_PAGE)
    free = decoding([10, 20], 30, temperature=1.0)
    at_once(runner, free)
    drawn = free.tokens[:, 1].tolist()
    token = next(t for i, t in enumerate(drawn) if i > 4 and t not in drawn[:i])
    for stops, end in (([[], [3, token]], drawn.index(token) + 1), ([[token], []], None)):
        runner.write_pages(EVERY_PAGE, before)
        stopped = is_lawful(runner, with_stops(free, stops))
        if end is not None:
            assert stopped.done == end
            assert not stopped.tokens[end:].any()


def test_logits_that_are_not_finite_end_it(runner: PackedRunner) -> None:
    fill(runner, [10, 20], ROOM)
    broken = runner.read_pages(ints([ROOM]))
    runner.write_pages(ints([ROOM]), np.full_like(broken, 255))
    steps = is_lawful(runner, decoding([10, 20], 5))
    assert steps.done == 1
    assert steps.finite[0].tolist() == [True, False]
    runner.write_pages(ints([ROOM]), broken)


def test_a_halt_before_the_call_leaves_one_step(runner: PackedRunner) -> None:
    fill(runner, [10], ROOM)
    steps = decoding([10], 30)
    steps.halt()
    at_once(runner, steps)
    assert steps.done == 1
    assert steps.finite.tolist() == [[True]] + [[False]] * 29


def test_a_halt_on_the_way_ends_it_after_a_step(runner: PackedRunner) -> None:
    """It is heard at once, but the call may have ended by itself by then."""
    lengths = [20] * 8
    fill(runner, lengths, ROOM)
    whole = decoding(lengths, 64)
    at_once(runner, whole)
    for _ in range(50):
        steps = decoding(lengths, 64)
        steps.announce()
        runner.start_steps(steps)
        while not steps.done:
            pass
        steps.halt()
        await_end(runner)
        assert np.array_equal(steps.tokens[: steps.done], whole.tokens[: steps.done])
        assert not steps.finite[steps.done :].any()
        if steps.done < 64:
            return
    pytest.fail("no halt was heard")


def test_the_bell_rings_at_the_end_and_after_each_step_that_is_announced(
    runner: PackedRunner,
) -> None:
    fill(runner, [10], ROOM)
    for count, announced, rings in ((7, False, 1), (1, True, 1), (7, True, 7)):
        steps = decoding([10], count)
        if announced:
            steps.announce()
        runner.bell.silence()
        runner.start_steps(steps)
        ringing, heard = select.poll(), 0
        ringing.register(runner.bell.descriptor, select.POLLIN)
        while ringing.poll(0 if runner.over and heard >= rings else 10_000):
            heard += os.eventfd_read(runner.bell.descriptor)
        assert (runner.over, heard) == (True, rings)


def test_what_the_batch_clears_and_copies_is_done_once(two: PackedRunner) -> None:
    fill(two, [30], ROOM)
    moves: dict[str, Any] = {
        "copy_sources": ints([1]),
        "copy_targets": ints([20]),
        "cleared_pages": ints([21]),
    }
    steps = is_lawful(two, decoding([30], 25, **moves))
    assert steps.done == 25
    assert not two.read_pages(ints([21])).any()


def _other(batch: Batch, count: int = 4, **fields: Any) -> MultiStep:
    """Steps of any batch."""
    uniform = np.full((count, batch.passes), 0.5, np.float32)
    starts = np.zeros(batch.passes + 1, np.int32)
    given: dict[str, Any] = {"uniform": uniform, "stops": ints(), "stop_starts": starts}
    return MultiStep(batch=batch, **given | fields)


_ONE = Pass(tokens=[1], pages=[0, 1], length=10)
_SOUND = make_batch([_ONE], **greedy([0]))


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        (_other(make_batch([Pass(tokens=[1, 2], pages=[0])], **greedy([0]))), "not one row"),
        (_other(make_batch([])), "not one row"),
        (_other(make_batch([_ONE, _ONE], **greedy([1, 0]))), "sample one token each"),
        (_other(make_batch([_ONE, _ONE], **greedy([0]))), "sample one token each"),
        (_other(make_batch([_ONE], **greedy([0]), **ranked([0], k=2))), "ranked"),
        (
            _other(make_batch([attrs.evolve(_ONE, masks={0: [3, 7]})], **greedy([0]))),
            "masked",
        ),
        (_other(make_batch([attrs.evolve(_ONE, tokens=[-3])], **greedy([0]))), "embedded"),
        (
            _other(attrs.evolve(_SOUND, stored_rows=ints([0]), stored_slots=ints([0]))),
            "stored",
        ),
        (_other(_SOUND, uniform=np.zeros((4, 2), np.float32)), "random numbers of shape"),
        (_other(_SOUND, uniform=np.zeros((4, 1), np.float32)), "random numbers of shape"),
        (_other(_SOUND, 0), "0 steps"),
        (_other(_SOUND, 65), "65 steps"),
        (_other(_SOUND, stops=ints([1])), "1 stop tokens do not fit"),
        (_other(_SOUND, stop_starts=ints([0])), "0 stop tokens do not fit"),
        (_other(_SOUND, 24), "pass 0 of length 10 and 23 more has 32 slots"),
        (_other(attrs.evolve(_SOUND, positions=ints([2**31 - 3]))), "positions beyond"),
        (_other(attrs.evolve(_SOUND, tokens=ints([10**6]))), "token 1000000"),
        (_other(attrs.evolve(_SOUND, pages=ints([0, PAGES]))), f"page 0 .. {PAGES}"),
        (_other(attrs.evolve(_SOUND, top_p=floats())), "do not fit each other"),
    ],
)
def test_what_is_not_sound_is_refused_and_harms_nothing(
    two: PackedRunner, steps: MultiStep, text: str
) -> None:
    before = two.read_pages(EVERY_PAGE)
    with pytest.raises(ValueError, match=text):
        at_once(two, steps)
    assert steps.done == 0
    assert np.array_equal(two.read_pages(EVERY_PAGE), before)
    expected = two.run(_SOUND).tokens
    at_once(two, sound := _other(_SOUND, 23))
    assert sound.done == 23
    assert two.run(_SOUND).tokens.tolist() == expected.tolist()
    assert sound.done == 23


def test_steps_that_are_done_are_not_run_again(two: PackedRunner) -> None:
    steps = _other(_SOUND)
    at_once(two, steps)
    with pytest.raises(ValueError, match="4 of them done"):
        at_once(two, steps)


def test_models_say_how_many_they_make(two: PackedRunner, path: Path) -> None:
    assert two.info.multi_steps == 64
    assert load(path, dtype="float32", pages=4).info.multi_steps == 1
