"""A row's bits are its own (contract S4): alone or in company, whole or in pieces."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pie.batch import Batch, Ints, ints
from pie.model import selftest
from pie.model.runner import TorchRunner
from tests.model.support import Pass, make_batch, sampled

LENGTH = 150
TOKENS = [(31 * i + 7) % 250 for i in range(LENGTH)]
WHOLE = range(10)
PIECES = range(10, 20)


def last_rows(runner: TorchRunner, passes: list[Pass]) -> Tensor:
    ends = np.cumsum([len(p.tokens) for p in passes]) - 1
    return runner.logits(make_batch(passes), ends.astype(np.int32))


def whole_logits(runner: TorchRunner) -> Tensor:
    batch = make_batch([Pass(tokens=TOKENS, pages=WHOLE)])
    return runner.logits(batch, ints(range(LENGTH)))


def test_this_machine_keeps_the_promise(tiny: TorchRunner) -> None:
    assert tiny.invariant


@settings(max_examples=25, deadline=None)
@given(cuts=st.sets(st.integers(1, LENGTH - 1), max_size=8))
def test_a_prefill_in_pieces_is_the_whole(tiny: TorchRunner, cuts: set[int]) -> None:
    whole = whole_logits(tiny)
    ends = [0, *sorted(cuts), LENGTH]
    for start, end in pairwise(ends):
        batch = make_batch([Pass(tokens=TOKENS[start:end], pages=PIECES, length=end)])
        part = tiny.logits(batch, ints(range(end - start)))
        assert torch.equal(part, whole[start:end]), (start, end)


@settings(max_examples=25, deadline=None)
@given(
    spans=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 100)), min_size=1, max_size=12),
    place=st.integers(0, 12),
)
def test_company_changes_nothing(
    tiny: TorchRunner, spans: list[tuple[int, int]], place: int
) -> None:
    whole = whole_logits(tiny)
    passes = [
        Pass(
            tokens=[(i + 3 * j) % 250 for j in range(rows)],
            pages=range(20 + 9 * i, 29 + 9 * i),
            length=before + rows,
        )
        for i, (rows, before) in enumerate(spans)
    ]
    mine = Pass(tokens=TOKENS[-1:], pages=WHOLE, length=LENGTH)
    place = min(place, len(passes))
    passes.insert(place, mine)
    assert torch.equal(last_rows(tiny, passes)[place], whole[-1])


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 15, 33, 64, 100])
def test_any_number_of_rows_gives_each_the_same(tiny: TorchRunner, count: int) -> None:
    whole = whole_logits(tiny)
    rows = [(7 * i) % LENGTH for i in range(count)]
    passes = [Pass(tokens=TOKENS[row : row + 1], pages=WHOLE, length=row + 1) for row in rows]
    assert torch.equal(last_rows(tiny, passes), whole[rows])


def test_tokens_and_draws_do_not_depend_on_the_batch(tiny: TorchRunner) -> None:
    passes = [
        Pass(tokens=TOKENS[i : i + 20], pages=range(3 * i, 3 * i + 3), length=20) for i in range(30)
    ]

    def asked(rows: list[int]) -> dict[str, Any]:
        return sampled(rows, temperature=1.5, top_p=0.9, min_p=0.01)

    alone = [tiny.run(make_batch([p], **asked([19]))).tokens[0] for p in passes]
    rows = [20 * i + 19 for i in range(30)]
    together = tiny.run(make_batch(passes, **asked(rows)))
    assert together.tokens.tolist() == alone


@pytest.mark.slow
def test_the_real_model_keeps_its_bits(smollm2: TorchRunner) -> None:
    tokens = [(977 * i) % 49000 + 20 for i in range(90)]
    whole = smollm2.logits(
        make_batch([Pass(tokens=tokens, pages=range(6))]), ints(range(len(tokens)))
    )
    for start, end in ((0, 37), (37, 38), (38, 90)):
        batch = make_batch([Pass(tokens=tokens[start:end], pages=range(6, 12), length=end)])
        assert torch.equal(smollm2.logits(batch, ints(range(end - start))), whole[start:end])
    rows = [3, 80, 17, 64, 63]
    passes = [Pass(tokens=tokens[r : r + 1], pages=range(6), length=r + 1) for r in rows]
    assert torch.equal(last_rows(smollm2, passes), whole[rows])


@pytest.mark.long
@pytest.mark.slow
def test_every_row_count_keeps_the_bits_of_the_real_model(smollm2: TorchRunner) -> None:
    tokens = [(977 * i) % 49000 + 20 for i in range(90)]
    whole = smollm2.logits(
        make_batch([Pass(tokens=tokens, pages=range(6))]), ints(range(len(tokens)))
    )
    for count in range(1, 90):
        passes = [
            Pass(tokens=tokens[r : r + 1], pages=range(6), length=r + 1) for r in range(count)
        ]
        assert torch.equal(last_rows(smollm2, passes), whole[:count]), count


def test_the_self_test_notices_a_library_that_rounds_by_shape(tiny: TorchRunner) -> None:
    def by_shape(batch: Batch, rows: Ints) -> Tensor:
        return tiny.logits(batch, rows) * (1.0 + 1e-6 * (batch.rows == 1))

    assert selftest.pieces_agree(tiny.logits, tiny.info.vocabulary)
    assert not selftest.pieces_agree(by_shape, tiny.info.vocabulary)
