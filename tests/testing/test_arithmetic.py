"""The arithmetic model, against its formula and against one that walks every slot."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pie.batch import ClearAdapter, ints
from pie.errors import PassFailed
from pie.testing import ArithmeticRunner
from tests.model.support import Pass, greedy, make_batch, ranked, sampled

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def test_the_next_token_is_what_the_docstring_computes() -> None:
    batch = make_batch([Pass(tokens=b"ab", pages=[3])], **greedy([1]))

    assert ArithmeticRunner().run(batch).tokens.tolist() == [ord("k")]


class Plain:
    """Walks the slots: (page, offset) -> what is written there."""

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.slots: dict[tuple[int, int], int] = {}

    def run(self, passes: list[Pass]) -> list[str]:
        """The next letter after every row of `passes`."""
        for one, row, slot in _rows(passes):
            position = slot if one.positions is None else one.positions[row]
            self.slots[self._place(one, slot)] = (one.tokens[row] + 1) * (position + 1)
        letters = []
        for one, row, slot in _rows(passes):
            runs = one.masks.get(row, [slot + 1])
            seen = [i % 2 == 0 for i, run in enumerate(runs) for _ in range(run)]
            total = sum(self.slots.get(self._place(one, s), 0) for s in range(slot + 1) if seen[s])
            letters.append(LETTERS[total % 26])
        return letters

    def _place(self, one: Pass, slot: int) -> tuple[int, int]:
        return one.pages[slot // self.page_size], slot % self.page_size


def _rows(passes: list[Pass]) -> Iterator[tuple[Pass, int, int]]:
    for one in passes:
        for row in range(len(one.tokens)):
            yield one, row, one.end - len(one.tokens) + row


def _some_passes(draw: random.Random, page_size: int) -> list[Pass]:
    """Passes over separate pages, some masked, some with positions of their own."""
    pages = draw.sample(range(16), 16)
    passes = []
    for first in range(0, 16, 4):
        length = draw.randint(1, 4 * page_size)
        rows = draw.randint(1, length)
        masks = {}
        if draw.random() < 0.3:
            row = draw.randrange(rows)
            hidden = draw.randint(0, length - rows + row)
            masks[row] = [hidden // 2, hidden - hidden // 2, length - rows + row + 1 - hidden]
        positions = [draw.randrange(100) for _ in range(rows)] if draw.random() < 0.3 else None
        tokens = [draw.randrange(258) for _ in range(rows)]
        passes.append(
            Pass(
                tokens=tokens,
                pages=pages[first : first + 4],
                length=length,
                positions=positions,
                masks=masks,
            )
        )
    return passes


@pytest.mark.parametrize("seed", range(20))
def test_any_batches_give_what_walking_the_slots_gives(seed: int) -> None:
    """Pages are reused between batches, so that old contents are there to be seen."""
    draw = random.Random(seed)
    page_size = draw.choice([1, 3, 16])
    model, plain = ArithmeticRunner(pages=16, page_size=page_size), Plain(page_size)
    for _ in range(10):
        passes = _some_passes(draw, page_size)
        rows = sum(len(one.tokens) for one in passes)
        tokens = model.run(make_batch(passes, **greedy(range(rows)))).tokens
        assert bytes(tokens.tolist()).decode() == "".join(plain.run(passes))


def _after(model: ArithmeticRunner, pages: list[int], length: int, **more: Any) -> str:
    one = Pass(tokens=[7], pages=pages, length=length)
    return chr(model.run(make_batch([one], **greedy([0]), **more)).tokens[0])


def test_a_wrong_page_or_length_shows() -> None:
    model = ArithmeticRunner()
    model.run(make_batch([Pass(tokens=range(32), pages=[1, 2])]))
    right = _after(model, [1, 2, 3], 33)

    assert _after(model, [1, 9, 3], 33) != right
    assert _after(model, [1, 2], 32) != right


def test_copied_moved_and_cleared_pages_hold_what_they_should() -> None:
    model = ArithmeticRunner()
    model.run(make_batch([Pass(tokens=range(32), pages=[1, 2])]))
    want = _after(model, [1, 2, 3], 33)
    copied = _after(model, [4, 5, 3], 33, copy_sources=ints([1, 2]), copy_targets=ints([4, 5]))
    kept = model.read_pages(ints([1, 2]))
    cleared = _after(model, [1, 2, 3], 33, cleared_pages=ints([1, 2]))
    model.write_pages(ints([2, 1]), kept)

    assert copied == want == _after(model, [2, 1, 3], 33)
    assert cleared == LETTERS[8 * 33 % 26]
    assert model.read_pages(ints()).shape == (0, 16 * 8)


def test_embedding_slots_hold_sums_and_stand_for_tokens() -> None:
    model = ArithmeticRunner()
    model.run(
        make_batch([Pass(tokens=b"ab", pages=[0])], stored_rows=ints([1]), stored_slots=ints([5]))
    )
    assert model.read_embeddings(ints([5])).tolist() == [[296.0]]
    batch = make_batch([Pass(tokens=[-1 - 5], pages=[1])], **greedy([0]))
    batch.tokens[0] = -1

    assert chr(model.run(batch).tokens[0]) == LETTERS[297 % 26]


def test_sampling_keeps_to_its_settings() -> None:
    """The best letter after "ab" is k; others follow in a circle, each half as likely."""
    model = ArithmeticRunner()

    def drawn(**settings: Any) -> str:
        batches = [
            make_batch([Pass(tokens=b"ab", pages=[0])], **sampled([1], uniform=u, **settings))
            for u in np.linspace(0, 0.999, 100)
        ]
        return "".join(sorted({chr(model.run(batch).tokens[0]) for batch in batches}))

    assert drawn() == LETTERS
    assert drawn(top_k=3) == "klm"
    assert drawn(top_p=0.75) == "kl"
    assert drawn(min_p=0.25) == "klm"
    assert drawn(top_p=0.0) == drawn(min_p=2.0) == drawn(temperature=0.0) == "k"


def test_distributions_rank_the_letters_from_the_best_on() -> None:
    batch = make_batch([Pass(tokens=b"ab", pages=[0])], **ranked([1], k=3))
    result = ArithmeticRunner().run(batch)

    assert bytes(result.ranked_ids.tolist()) == b"klm"
    assert result.ranked_probabilities.tolist() == [0.5, 0.25, 0.125]


def test_it_takes_no_adapters() -> None:
    with pytest.raises(PassFailed, match="takes no adapters"):
        ArithmeticRunner().adapt(ClearAdapter(0))
