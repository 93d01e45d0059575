"""The simulated model keeps the laws of a real one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pie.batch import (
    ClearAdapter,
    DownloadAdapter,
    InitializeAdapter,
    UpdateAdapter,
    UploadAdapter,
    ints,
)
from pie.errors import GuestError, PassFailed
from pie.testing import HashModel
from tests.model.adapters import adapted
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


def start(slot: int, rank: int = 8, size: int = 2) -> InitializeAdapter:
    return InitializeAdapter(
        slot=slot,
        rank=rank,
        alpha=1.0,
        population_size=size,
        mu_fraction=0.5,
        initial_sigma=0.1,
    )


def state_with(model: HashModel, slot: int, seed: int | None = None) -> int:
    """The stored hidden state of a prompt's last row: all that was hashed into it."""
    one = Pass(tokens=PROMPT, pages=[0, 1])
    stored = {"stored_rows": ints([len(PROMPT) - 1]), "stored_slots": ints([0])}
    model.run(adapted([one], [slot], [seed], **stored))
    return int(model._embeddings[0])


def test_every_difference_of_adapters_shows() -> None:
    """Bytes, settings, scores, the order of updates, noise and its seed; not the slot."""
    model = HashModel()
    model.adapt(UploadAdapter(0, b"hash one"))
    model.adapt(UploadAdapter(1, b"hash two"))
    model.adapt(UploadAdapter(2, b"hash one"))
    assert state_with(model, 0) == state_with(model, 2)
    seen = {state_with(model, slot) for slot in (-1, 0, 1)}
    steps = [UpdateAdapter(3, (1.0, 2.0), (5, 6), 0.0), UpdateAdapter(3, (1.0, 3.0), (5, 6), 0.0)]
    for order in (steps, steps[::-1]):
        model.adapt(start(3))
        for step in order:
            model.adapt(step)
            seen.add(state_with(model, 3))
    seen |= {state_with(model, 3, seed) for seed in (-1, 0, 1)}
    model.adapt(start(3, rank=9))
    seen.add(state_with(model, 3))
    assert len(seen) == 3 + 4 + 3 + 1


def test_passes_with_different_adapters_share_a_batch() -> None:
    model = HashModel()
    model.adapt(UploadAdapter(0, b"hash one"))
    model.adapt(start(1))
    rows = [(-1, None), (0, None), (1, None), (1, 7), (1, -7), (5, 7)]
    alone = [state_with(model, slot, seed) for slot, seed in rows]
    passes = [Pass(tokens=PROMPT, pages=[2 * i, 2 * i + 1]) for i in range(len(rows))]
    ends = [len(PROMPT) * (i + 1) - 1 for i in range(len(rows))]
    stored = {"stored_rows": ints(ends), "stored_slots": ints(range(len(rows)))}
    slots, seeds = zip(*rows, strict=True)
    model.run(adapted(passes, slots, seeds, **stored))
    assert model._embeddings[: len(rows)].tolist() == alone
    assert len(set(alone)) == len(rows) - 1  # the last one's slot holds nothing
    assert alone[5] == alone[0]


def test_an_adapter_of_the_simulated_model_is_whatever_was_uploaded() -> None:
    model = HashModel()
    support = model.info.adapters
    assert support is not None
    support.check(b"hash of anything")
    with pytest.raises(GuestError, match="b'PK' is not b'hash'"):
        support.check(b"PK")
    model.adapt(UploadAdapter(4, b"hash of anything"))
    assert model.adapt(DownloadAdapter(4)) == b"hash of anything"
    model.adapt(ClearAdapter(4))
    assert state_with(model, 4) == state_with(model, -1)
    model.adapt(start(4))
    support.check(model.adapt(DownloadAdapter(4)))


def test_what_a_slot_does_not_allow_fails() -> None:
    model = HashModel()
    for command in (DownloadAdapter(6), UpdateAdapter(6, (), (), 0.0)):
        with pytest.raises(PassFailed, match="slot 6 holds nothing"):
            model.adapt(command)
    model.adapt(start(6))
    with pytest.raises(PassFailed, match="1 scores and 2 seeds for a population of 2"):
        model.adapt(UpdateAdapter(6, (1.0,), (1, 2), 0.0))


def test_a_simulated_model_may_take_no_adapters() -> None:
    assert HashModel(adapter_slots=0).info.adapters is None
    assert "adapter" not in HashModel(adapter_slots=0).info.traits
    assert "adapter" in HashModel().info.traits
