"""The simulated model keeps the laws of a real one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pie.batch import ints
from pie.testing import HashModel
from tests.model.support import Pass, greedy, make_batch

PROMPT = [72, 101, 108, 108, 111] * 5


def token_after(model: HashModel, one: Pass, **more: object) -> NDArray[np.int32]:
    return model.run(make_batch([one], **greedy([len(one.tokens) - 1]), **more)).tokens


def test_a_sequence_goes_on_from_pages_that_were_away() -> None:
    model = HashModel()
    token_after(model, Pass(tokens=PROMPT, pages=[4, 2]))
    kept = model.read_pages(ints([4, 2]))
    want = token_after(model, Pass(tokens=[1], pages=[4, 2], length=26))
    model.run(make_batch([], cleared_pages=ints([4, 2])))
    model.write_pages(ints([9, 7]), kept)
    assert token_after(model, Pass(tokens=[1], pages=[9, 7], length=26)) == want
    assert kept.shape == (2, 2 * model.info.page_size * 8)
    assert model.read_pages(ints()).shape == (0, kept.shape[1])
