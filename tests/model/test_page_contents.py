"""What a page holds can leave the device and come back elsewhere, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pie.batch import ints
from pie.model.runner import TorchRunner
from tests.model.support import Pass, make_batch

PROMPT = [(31 * i + 7) % 250 for i in range(41)]


def carry_on(runner: TorchRunner, pages: list[int], length: int) -> torch.Tensor:
    """Logits of five further tokens, one pass each."""
    rows = []
    for step, token in enumerate((3, 1, 4, 1, 5), start=length + 1):
        one = Pass(tokens=[token], pages=pages, length=step)
        rows.append(runner.logits(make_batch([one]), ints([0]))[0])
    return torch.stack(rows)


def moved_and_uninterrupted(runner: TorchRunner) -> tuple[torch.Tensor, torch.Tensor]:
    before, after = [2, 0, 5], [9, 11, 7]
    runner.run(make_batch([Pass(tokens=PROMPT, pages=before)]))
    kept = runner.read_pages(ints(before))
    want = carry_on(runner, before, len(PROMPT))
    runner.run(make_batch([], cleared_pages=ints(before)))
    runner.write_pages(ints(after), kept)
    return carry_on(runner, after, len(PROMPT)), want


def test_a_sequence_goes_on_from_pages_that_were_away(tiny: TorchRunner) -> None:
    assert torch.equal(*moved_and_uninterrupted(tiny))


@pytest.mark.slow
def test_a_sequence_of_the_real_model_goes_on_from_pages_that_were_away(
    smollm2: TorchRunner,
) -> None:
    assert torch.equal(*moved_and_uninterrupted(smollm2))


def test_every_bit_comes_back(tiny: TorchRunner) -> None:
    """Also those of values that are no numbers."""
    shape = tiny.read_pages(ints([0, 1, 2])).shape
    random = np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)
    tiny.write_pages(ints([4, 8, 6]), random)
    assert np.array_equal(tiny.read_pages(ints([6, 4, 8, 4])), random[[2, 0, 1, 0]])
    tiny.run(make_batch([], cleared_pages=ints([4, 6, 8])))


def test_contents_are_a_copy_and_leave_other_pages_alone(tiny: TorchRunner) -> None:
    tiny.run(make_batch([Pass(tokens=PROMPT, pages=[2, 0, 5])]))
    kept = tiny.read_pages(ints([0, 2]))
    again = kept.copy()
    tiny.run(make_batch([], cleared_pages=ints([0])))
    assert np.array_equal(kept, again)
    assert np.array_equal(tiny.read_pages(ints([2]))[0], again[1])
    assert not tiny.read_pages(ints([0])).any()


def test_read_only_contents_and_no_pages_are_fine(tiny: TorchRunner) -> None:
    kept = tiny.read_pages(ints([2]))
    tiny.write_pages(ints([3]), np.frombuffer(kept.tobytes(), np.uint8).reshape(kept.shape))
    assert np.array_equal(tiny.read_pages(ints([3])), kept)
    tiny.write_pages(ints(), tiny.read_pages(ints()))
    assert tiny.read_pages(ints()).shape == (0, kept.shape[1])
