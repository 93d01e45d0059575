"""The packed runner: the reference's answers within its rounding, and bits that are a row's own."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pie.batch import Floats, InitializeAdapter, ints
from pie.errors import PassFailed, UsageError
from pie.model import load
from pie.model.adapter import LoraSupport
from pie.model.runner import TorchRunner
from tests.model.support import Pass, greedy, make_batch, ranked, sampled
from tests.model.tiny import Tiny, write_gguf
from tests.multi_steps import await_end

pytest.importorskip("llvmlite")

from pie.kernels.cpu.lines import Form
from pie.kernels.cpu.target import detect
from pie.model.packed.runner import PackedRunner

pytestmark = pytest.mark.skipif(detect() is None, reason="no packed kernels for this machine")

SHAPE = Tiny(hidden=64, heads=6, kv_heads=2, head_dim=32, ffn=96)
LENGTH = 150
TOKENS = [(31 * i + 7) % 250 for i in range(LENGTH)]
NEAR = 0.1
"""What activations of 8 bits may change; two different rows are more than 1 apart."""
WHOLE, PIECES = range(10), range(10, 20)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PackedRunner, TorchRunner]]:
    """The same tiny model, packed and in float32."""
    path = write_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", SHAPE)
    packed = load(path, pages=128, embedding_slots=8, threads=2)
    exact = load(path, dtype="float32", pages=128, embedding_slots=8)
    assert isinstance(packed, PackedRunner)
    assert isinstance(exact, TorchRunner)
    yield packed, exact
    packed.close()


@pytest.fixture(scope="module")
def packed(pair: tuple[PackedRunner, TorchRunner]) -> PackedRunner:
    return pair[0]


def difference(found: Floats, expected: Floats) -> float:
    """How far apart on average, as a share of what is expected."""
    return float(np.sqrt(((found - expected) ** 2).mean()) / np.asarray(expected).std())


def agree(pair: tuple[PackedRunner, TorchRunner], *batches: list[Pass]) -> None:
    """Logits of all rows of the last batch, after the others, are near the reference's."""
    for passes in batches:
        batch = make_batch(passes)
        rows = ints(range(batch.rows))
        found, expected = (np.asarray(runner.logits(batch, rows)) for runner in pair)
        assert difference(found, expected) < NEAR


def whole_logits(runner: PackedRunner) -> Floats:
    return runner.logits(make_batch([Pass(tokens=TOKENS, pages=WHOLE)]), ints(range(LENGTH)))


def last_rows(runner: PackedRunner, passes: list[Pass]) -> Floats:
    ends = np.cumsum([len(p.tokens) for p in passes]) - 1
    return runner.logits(make_batch(passes), ends.astype(np.int32))


def test_a_prefill_is_near_the_reference(pair: tuple[PackedRunner, TorchRunner]) -> None:
    agree(pair, [Pass(tokens=TOKENS, pages=WHOLE)])


def test_masks_positions_and_shared_pages_too(pair: tuple[PackedRunner, TorchRunner]) -> None:
    prompt = [Pass(tokens=TOKENS[:40], pages=WHOLE)]
    masks = {0: [3, 20, 18], 1: [0, 42], 2: [16, 16, 1, 1, 9]}
    tree = Pass(
        tokens=TOKENS[40:43],
        pages=WHOLE,
        length=43,
        positions=[40, 40, 41],
        masks=masks,
    )
    other = Pass(tokens=TOKENS[50:51], pages=[*WHOLE[:2], 30], length=33, positions=[1000])
    agree(pair, prompt, [tree, other])


def test_embedding_slots_are_stored_and_taken(pair: tuple[PackedRunner, TorchRunner]) -> None:
    prompt = make_batch(
        [Pass(tokens=TOKENS[:20], pages=WHOLE)],
        stored_rows=ints([4, 19]),
        stored_slots=ints([3, 1]),
    )
    for runner in pair:
        runner.run(prompt)
    kept, expected = (runner.read_embeddings(ints([3, 1, 0])) for runner in pair)
    assert difference(kept[:2], expected[:2]) < NEAR
    assert not kept[2].any()
    agree(pair, [Pass(tokens=[-1 - 3, 5, -1 - 1], pages=PIECES)])


def test_adapters_change_the_rows_that_use_them(pair: tuple[PackedRunner, TorchRunner]) -> None:
    command = InitializeAdapter(
        slot=2, rank=4, alpha=8.0, population_size=4, mu_fraction=0.5, initial_sigma=0.2
    )
    passes = [Pass(tokens=TOKENS[:9], pages=[i]) for i in range(3)]
    bare = make_batch(passes)
    batch = make_batch(
        passes,
        adapters=ints([2, -1, 2]),
        noisy=np.array([True, False, True]),
        noise_seeds=np.array([7, 0, 8]),
    )
    rows = ints(range(27))
    for runner in pair:
        runner.adapt(command)
    found, expected = (np.asarray(runner.logits(batch, rows)) for runner in pair)
    plain = pair[0].logits(bare, rows)
    assert difference(found, expected) < NEAR
    assert difference(expected[:9], plain[:9]) > 3 * NEAR
    assert np.array_equal(found[9:18], plain[9:18])


@settings(max_examples=25, deadline=None)
@given(cuts=st.sets(st.integers(1, LENGTH - 1), max_size=8))
def test_a_prefill_in_pieces_is_the_whole(packed: PackedRunner, cuts: set[int]) -> None:
    whole = whole_logits(packed)
    for start, end in pairwise([0, *sorted(cuts), LENGTH]):
        batch = make_batch([Pass(tokens=TOKENS[start:end], pages=PIECES, length=end)])
        part = packed.logits(batch, ints(range(end - start)))
        assert np.array_equal(part, whole[start:end]), (start, end)


@settings(max_examples=25, deadline=None)
@given(
    spans=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 100)), min_size=1, max_size=12),
    place=st.integers(0, 12),
)
def test_company_changes_nothing(
    packed: PackedRunner, spans: list[tuple[int, int]], place: int
) -> None:
    whole = whole_logits(packed)
    passes = [
        Pass(
            tokens=[(i + 3 * j) % 250 for j in range(rows)],
            pages=range(20 + 9 * i, 29 + 9 * i),
            length=before + rows,
        )
        for i, (rows, before) in enumerate(spans)
    ]
    place = min(place, len(passes))
    passes.insert(place, Pass(tokens=TOKENS[-1:], pages=WHOLE, length=LENGTH))
    assert np.array_equal(last_rows(packed, passes)[place], whole[-1])


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 15, 33, 64, 100])
def test_any_number_of_rows_gives_each_the_same(packed: PackedRunner, count: int) -> None:
    whole = whole_logits(packed)
    rows = [(7 * i) % LENGTH for i in range(count)]
    passes = [Pass(tokens=TOKENS[row : row + 1], pages=WHOLE, length=row + 1) for row in rows]
    assert np.array_equal(last_rows(packed, passes), whole[rows])


def test_outputs_are_those_of_the_logits(packed: PackedRunner) -> None:
    rows = [0, 70, 149]
    batch = make_batch(
        [Pass(tokens=TOKENS, pages=WHOLE)],
        **sampled(rows, temperature=0.0),
        **ranked([70, 70], k=5),
    )
    logits = whole_logits(packed).astype(np.float64)
    result = packed.run(batch)
    assert result.tokens.tolist() == logits[rows].argmax(-1).tolist()
    assert result.sampled_finite.all()
    weights = np.exp(logits[70] - logits[70].max())
    best = np.argsort(-logits[70], kind="stable")[:5]
    assert result.ranked_starts.tolist() == [0, 5, 10]
    assert result.ranked_ids.tolist() == [*best, *best]
    assert result.ranked_probabilities[:5] == pytest.approx(weights[best] / weights.sum(), rel=1e-5)


def test_pages_are_moved_and_copied_bit_for_bit(packed: PackedRunner) -> None:
    whole = whole_logits(packed)
    contents: NDArray[np.uint8] = packed.read_pages(ints(WHOLE))
    packed.write_pages(ints(range(40, 50)), contents)
    moved = Pass(tokens=TOKENS[-1:], pages=range(40, 50), length=LENGTH)
    copied = Pass(tokens=TOKENS[-1:], pages=[*range(40, 49), 60], length=LENGTH)
    batch = make_batch([moved, copied], copy_sources=ints([9, 49]), copy_targets=ints([60, 9]))
    assert np.array_equal(packed.logits(batch, ints([0, 1])), whole[[-1, -1]])
    packed.run(make_batch([Pass(tokens=[1], pages=[60])], cleared_pages=ints(WHOLE)))
    assert not packed.read_pages(ints(WHOLE)).any()


def test_many_outputs_are_answered_in_chunks(
    packed: PackedRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_batch(
        [Pass(tokens=TOKENS, pages=WHOLE)], **sampled(range(LENGTH), temperature=0.0)
    )
    at_once = packed.run(batch).tokens
    monkeypatch.setattr("pie.model.packed.room.LOGIT_BYTES", 7 * 4 * 272)
    other = load(write_gguf(tmp_path / "tiny.gguf", SHAPE), pages=16)
    assert other.run(batch).tokens.tolist() == at_once.tolist()
    other.close()


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"pages": [128]}, "page 128 .. 128 of 128"),
        ({"tokens": [100000]}, "token 100000"),
        ({"length": 17}, "does not fit"),
    ],
)
def test_what_is_out_of_bounds_is_refused(
    packed: PackedRunner, more: dict[str, object], text: str
) -> None:
    settings = {"tokens": [1], "pages": [0]} | more
    with pytest.raises(ValueError, match=text):
        packed.run(make_batch([Pass(**settings)]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("moves", "text"),
    [
        ({"tokens": ints([100000])}, "token 100000"),
        ({"cleared_pages": ints([2, 128])}, "cleared page 2 .. 128 of 128"),
        ({"cleared_embeddings": ints([-1])}, "cleared embedding slot -1 .. -1 of 8"),
        ({"copy_sources": ints([128])}, "copied page 128 .. 128 of 128"),
        ({"copy_targets": ints([-1])}, "copy's page -1 .. -1 of 128"),
        ({"copy_targets": ints([2, 3])}, "do not fit each other"),
    ],
)
def test_a_batch_that_is_refused_has_cleared_and_copied_nothing(
    packed: PackedRunner, moves: dict[str, Any], text: str
) -> None:
    whole_logits(packed)
    before = packed.read_pages(ints(range(128)))
    sound = {"cleared_pages": ints([0]), "copy_sources": ints([0]), "copy_targets": ints([1])}
    batch = make_batch([Pass(tokens=[1], pages=[2])], **greedy([0]), **sound)
    with pytest.raises(ValueError, match=text):
        packed.run(attrs.evolve(batch, **moves))
    assert np.array_equal(packed.read_pages(ints(range(128))), before)
    packed.run(batch)
    assert not packed.read_pages(ints([0, 1])).any()


def test_a_step_that_is_started_is_one_that_is_run(packed: PackedRunner) -> None:
    """In turns, and with steps that have no rows between them."""
    prompt = Pass(tokens=TOKENS, pages=WHOLE)
    batch = make_batch([prompt], **sampled([LENGTH - 1]), **ranked([3], k=5))
    expected = packed.run(batch)
    for _ in range(50):
        found = packed.start(batch)
        await_end(packed)
        assert found.tokens.tolist() == expected.tokens.tolist()
        assert found.ranked_ids.tolist() == expected.ranked_ids.tolist()
        assert found.ranked_probabilities.tolist() == expected.ranked_probabilities.tolist()
        packed.start(make_batch([], cleared_pages=ints(WHOLE)))
        await_end(packed)
        assert not packed.read_pages(ints(WHOLE)).any()
        assert packed.run(batch).tokens.tolist() == expected.tokens.tolist()


def test_threads_agree(pair: tuple[PackedRunner, TorchRunner], tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", SHAPE)
    for threads in (1, 3):
        other = load(path, pages=32, threads=threads)
        assert isinstance(other, PackedRunner)
        assert np.array_equal(whole_logits(other), whole_logits(pair[0]))
        other.close()


def test_pages_of_bytes_hold_half_and_keep_the_laws(
    pair: tuple[PackedRunner, TorchRunner],
) -> None:
    """K and V of 8 bits stay near the reference, and a row's bits are its own there, too."""
    packed, exact = pair
    assert isinstance(packed.info.adapters, LoraSupport)
    small = PackedRunner(packed.model, packed.info, packed.info.adapters, 2, Form.INT8)
    try:
        assert small.read_pages(ints([0])).nbytes < 0.6 * packed.read_pages(ints([0])).nbytes
        agree((small, exact), [Pass(tokens=TOKENS, pages=WHOLE)])
        whole = whole_logits(small)
        assert whole.tobytes() != whole_logits(packed).tobytes()
        for start, end in ((0, 37), (37, 149), (149, 150)):
            part = [Pass(tokens=TOKENS[start:end], pages=PIECES, length=end)]
            assert last_rows(small, part)[0].tobytes() == whole[end - 1].tobytes()
    finally:
        small.close()


def test_a_runner_that_is_forgotten_ends_its_threads(tmp_path: Path) -> None:
    """They would go on reading memory that is somebody else's by then."""
    others = set(threading.enumerate())
    runner = load(write_gguf(tmp_path / "tiny.gguf", SHAPE), pages=16, threads=3)
    workers = set(threading.enumerate()) - others
    assert len(workers) == 3
    prompt = make_batch([Pass(tokens=TOKENS, pages=WHOLE)] * 20, **sampled([LENGTH - 1]))
    runner.run(prompt)
    assert isinstance(runner, PackedRunner)
    runner.start(prompt)
    del runner
    gc.collect()
    assert not any(worker.is_alive() for worker in workers)


def test_pages_in_8_bits_are_near_those_in_16(
    pair: tuple[PackedRunner, TorchRunner], tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", SHAPE)
    small = load(path, pages=16, kv="int8")
    assert isinstance(small, PackedRunner)
    whole = whole_logits(pair[0])
    assert 0 < difference(whole_logits(small), whole) < NEAR
    assert small.read_pages(ints([0])).size < 0.6 * pair[0].read_pages(ints([0])).size
    assert small.info.fingerprint() != pair[0].info.fingerprint()
    small.close()
    with pytest.raises(UsageError, match="kv 'int8' is for packed models"):
        load(path, dtype="float32", kv="int8")


@pytest.mark.parametrize("settings", [{"dtype": "float32"}, {}, {"kv": "int8"}])
def test_without_a_number_pages_fill_a_quarter_of_a_small_memory(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what a page really takes: zeros that fill up its heads, too."""
    path = write_gguf(tmp_path / "tiny.gguf", attrs.evolve(SHAPE, heads=8, head_dim=24))
    memory = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}
    asked = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda name: memory.get(name) or asked(name))
    runner = load(path, threads=1, **settings)
    try:
        page = runner.read_pages(ints([0])).nbytes
        assert runner.info.pages == 4096 * 1000 // 4 // page
    finally:
        runner.close()


def test_a_step_that_memory_is_too_short_for_is_lost_and_nothing_else(
    packed: PackedRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = whole_logits(packed)
    rows = 100_000
    large = make_batch([Pass(tokens=[1] * 16, pages=[i % 128]) for i in range(rows // 16)])

    def refuse(size: int) -> NDArray[np.uint8]:
        raise OSError(f"cannot allocate {size}")

    monkeypatch.setattr("pie.model.packed.room.reserve", refuse)
    with pytest.raises(PassFailed, match="no memory for"):
        packed.run(large)
    assert np.array_equal(whole_logits(packed), whole)


def test_logits_of_a_batch_with_many_outputs_leave_its_memory_sound(packed: PackedRunner) -> None:
    prompt = Pass(tokens=TOKENS, pages=WHOLE)
    asked = make_batch([prompt] * 4, **sampled([*range(4 * LENGTH)] * 3, temperature=0.0))
    logits = packed.logits(asked, ints([0]))
    assert packed._plan["requests"][0] == packed._room._held["requests"].ctypes.data
    assert packed.run(asked).tokens[0] == logits[0].argmax()


def test_a_step_without_outputs_is_over_for_all_threads(tmp_path: Path) -> None:
    """More threads than processors: some are late to leave it when the next one begins."""
    runner = load(write_gguf(tmp_path / "tiny.gguf", SHAPE), pages=1, threads=3)
    prompt = make_batch([Pass(tokens=TOKENS[:5], pages=[0])])
    step = make_batch([Pass(tokens=TOKENS[5:6], pages=[0], length=6)], **sampled([0]))
    tokens = set()
    for _ in range(100):
        runner.run(prompt)
        tokens.update(runner.run(step).tokens.tolist())
    runner.close()
    assert len(tokens) == 1
