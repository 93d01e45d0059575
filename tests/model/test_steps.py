"""What a step does beside plain causal passes: masks, maintenance, embeddings, odd requests."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pie.batch import Batch, ints
from pie.errors import PassFailed
from pie.model.runner import TorchRunner
from tests.model.support import Pass, greedy, make_batch, ranked, sampled

TOKENS = [(31 * i + 7) % 250 for i in range(90)]


def near(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0.0)


def last(runner: TorchRunner, one: Pass) -> Tensor:
    return runner.logits(make_batch([one]), ints([len(one.tokens) - 1]))[0]


def test_slots_that_a_mask_hides_might_as_well_not_be_there(tiny: TorchRunner) -> None:
    """Contract M2: removing the tokens and keeping the positions gives the same."""
    kept = [*range(20), *range(50, 70)]
    removed = Pass(tokens=[TOKENS[i] for i in kept], positions=kept, pages=range(5))
    hidden = {row: (20, 30, row - 49) for row in range(50, 70)}
    masked = Pass(tokens=TOKENS[:70], pages=range(5, 10), masks=hidden)
    near(last(tiny, masked), last(tiny, removed))
    # The next token, alone in its pass, with a mask as well.
    removed = Pass(tokens=[9], positions=[70], pages=range(5), length=41)
    masked = Pass(tokens=[9], pages=range(5, 10), length=71, masks={0: (20, 30, 21)})
    near(last(tiny, masked), last(tiny, removed))


def test_each_branch_of_a_masked_tree_is_its_own_path(tiny: TorchRunner) -> None:
    trunk, left, right = TOKENS[:21], [11, 12, 13], [21, 22, 23, 24]
    n = len(trunk)
    tree = Pass(
        tokens=[*trunk, *left, *right],
        positions=[*range(n), *range(n, n + 3), *range(n, n + 4)],
        pages=range(2),
        masks={n + 3 + i: (n, 3, i + 1) for i in range(4)},
    )
    tips = tiny.logits(make_batch([tree]), ints([n + 2, n + 6]))
    for tip, branch in zip(tips, (left, right), strict=True):
        path = last(tiny, Pass(tokens=[*trunk, *branch], pages=range(2, 5)))
        near(tip, path)


def test_a_mask_that_hides_nothing_changes_no_bit(tiny: TorchRunner) -> None:
    plain = make_batch([Pass(tokens=TOKENS[:40], pages=range(3))])
    rows = ints(range(40))
    masks = {0: (1,), 5: (2, 0, 4), 39: (40, 0)}
    masked = make_batch([Pass(tokens=TOKENS[:40], pages=range(3, 6), masks=masks)])
    assert torch.equal(tiny.logits(plain, rows), tiny.logits(masked, rows))


def test_a_masked_row_leaves_its_neighbours_alone(tiny: TorchRunner) -> None:
    first = Pass(tokens=TOKENS[:40], pages=range(3))
    second = Pass(tokens=TOKENS[:40], pages=range(3, 6), masks={39: (0, 20, 20)})
    logits = tiny.logits(make_batch([first, second]), ints(range(80)))
    assert torch.equal(logits[:39], logits[40:79])
    assert not torch.equal(logits[39], logits[79])


def test_a_row_that_sees_nothing_has_a_zero_attention_output(tiny: TorchRunner) -> None:
    """Contract M3. What its history was then cannot matter."""
    rows = []
    for pages, salt in ((range(3), 0), (range(3, 6), 1)):
        history = [(token + salt) % 250 for token in TOKENS[:40]]
        one = Pass(tokens=[*history, 5], pages=pages, masks={40: (0, 41)})
        rows.append(last(tiny, one))
    assert torch.equal(rows[0], rows[1])
    assert torch.isfinite(rows[0]).all()
    # The only slot of a fresh sequence, hidden: also nothing to see, at whatever position.
    alone = Pass(tokens=[5], pages=[6], masks={0: (0, 1)})
    assert torch.equal(last(tiny, alone), rows[0])


def test_a_cleared_page_is_zero_and_a_copied_one_equal(tiny: TorchRunner) -> None:
    last(tiny, Pass(tokens=TOKENS[:32], pages=[0, 1]))
    extend = Pass(tokens=[3], pages=[10, 11, 12], length=33)
    want = last(tiny, Pass(tokens=[3], pages=[0, 1, 2], length=33))
    copied = make_batch([extend], copy_sources=ints([0, 1]), copy_targets=ints([10, 11]))
    assert torch.equal(tiny.logits(copied, ints([0]))[0], want)
    # Clearing comes first: a page that is cleared and then copied to holds the copy.
    both = make_batch(
        [extend],
        cleared_pages=ints([10, 11, 12]),
        copy_sources=ints([1]),
        copy_targets=ints([11]),
    )
    cleared = tiny.logits(both, ints([0]))[0]
    assert not torch.equal(cleared, want)
    assert not tiny._cache.data[:, :, :, 160:176].any()
    halves = tiny._cache.data[:, :, :, 176:192], tiny._cache.data[:, :, :, 16:32]
    assert torch.equal(*halves)


def test_a_step_may_only_maintain(tiny: TorchRunner) -> None:
    batch = Batch(
        tokens=ints(),
        positions=ints(),
        row_starts=ints([0]),
        pages=ints(),
        page_starts=ints([0]),
        lengths=ints(),
        cleared_pages=ints([3]),
    )
    assert len(tiny.run(batch).tokens) == 0


def test_a_later_pass_reads_what_an_earlier_one_of_the_batch_writes(tiny: TorchRunner) -> None:
    """Contract K5."""
    alone = [
        last(tiny, Pass(tokens=TOKENS[:20], pages=[0, 1])),
        last(tiny, Pass(tokens=TOKENS[20:25], pages=[0, 1], length=25)),
    ]
    first = Pass(tokens=TOKENS[:20], pages=[2, 3])
    second = Pass(tokens=TOKENS[20:25], pages=[2, 3], length=25)
    together = tiny.logits(make_batch([first, second]), ints([19, 24]))
    assert torch.equal(together, torch.stack(alone))


def test_what_a_page_held_before_is_never_read(tiny: TorchRunner) -> None:
    """Not even multiplied by zero: values that are not finite would spread."""
    want = last(tiny, Pass(tokens=TOKENS[:5], pages=[20]))
    with torch.inference_mode():
        tiny._cache.data[:, :, :, 20 * 16 : 22 * 16] = float("nan")
    assert torch.equal(last(tiny, Pass(tokens=TOKENS[:5], pages=[20, 21])), want)
    tiny.run(make_batch([], cleared_pages=ints([20, 21])))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_stay_with_the_rows_that_see_them(
    tiny: TorchRunner, bad: float
) -> None:
    """A value of a later token, or of a hidden slot, is not seen, though its tile gathers it."""
    prompt = Pass(tokens=TOKENS[:5], pages=[20])
    masks = {row: (3, 1, row + 2) for row in range(6)}
    rest = Pass(tokens=TOKENS[5:12], pages=[20], length=12, masks=masks)
    for layer in range(2):
        tiny.run(make_batch([prompt]))
        want = tiny.logits(make_batch([rest]), ints(range(7)))
        with torch.inference_mode():
            tiny._cache.data[layer, 1, 1, 20 * 16 + 3] = bad
        found = tiny.logits(make_batch([rest]), ints(range(7)))
        assert torch.equal(found[:6], want[:6])
        assert not torch.isfinite(found[6]).any()
    # The fourth token's own values are broken: those before it do not see it.
    with torch.inference_mode():
        tiny._embeddings[6] = bad
    one = Pass(tokens=[*TOKENS[:3], -7, *TOKENS[4:7]], pages=[21])
    found = tiny.logits(make_batch([one]), ints(range(7)))
    whole = tiny.logits(make_batch([Pass(tokens=TOKENS[:7], pages=[22])]), ints(range(7)))
    assert torch.equal(found[:3], whole[:3])
    assert not torch.isfinite(found[3:]).any()
    tiny.run(make_batch([], cleared_pages=ints([20, 21]), cleared_embeddings=ints([6])))


def test_a_stored_hidden_state_is_an_input_like_a_token(tiny: TorchRunner) -> None:
    """Contract F4: what is stored is the state after the last norm."""
    prompt = Pass(tokens=TOKENS[:10], pages=[0])
    stored = make_batch([prompt], stored_rows=ints([9, 3]), stored_slots=ints([5, 2]))
    tiny.run(stored)
    model = tiny._model
    logits = tiny.logits(make_batch([prompt]), ints([9]))
    assert torch.equal(model.head(tiny._embeddings[[5] * 8])[:1], logits)
    # Slot 1 gets the embedding of token 42: then it must act like the token.
    with torch.inference_mode():
        tiny._embeddings[1] = model.embedding[42]
    by_slot = last(tiny, Pass(tokens=[7, -2, 8], pages=[1]))
    by_token = last(tiny, Pass(tokens=[7, 42, 8], pages=[2]))
    assert torch.equal(by_slot, by_token)
    tiny.run(make_batch([], cleared_embeddings=ints([1])))
    assert not tiny._embeddings[1].any()
    assert tiny._embeddings[5].any()


def test_a_row_may_be_asked_twice_and_in_any_order(tiny: TorchRunner) -> None:
    one = Pass(tokens=TOKENS[:12], pages=[0])
    result = tiny.run(make_batch([one], **greedy([11, 3, 11]), **ranked([3, 11], k=2)))
    best = tiny.logits(make_batch([one]), ints([3, 11])).argmax(-1).tolist()
    assert result.tokens.tolist() == [best[1], best[0], best[1]]
    assert result.ranked_ids[result.ranked_starts[:-1]].tolist() == best


def test_positions_may_repeat_and_lie_anywhere(tiny: TorchRunner) -> None:
    """Contract K3: even past the context; only differences of positions matter to attention."""
    here = last(tiny, Pass(tokens=[4, 5, 6], positions=[0, 0, 1], pages=[0]))
    far = last(tiny, Pass(tokens=[4, 5, 6], positions=[700, 700, 701], pages=[1]))
    near(here, far)


def test_logits_that_are_not_finite_are_reported_for_their_slots_only(tiny: TorchRunner) -> None:
    with torch.inference_mode():
        tiny._embeddings[7] = float("nan")
    passes = [Pass(tokens=[3, -8], pages=[0]), Pass(tokens=[3, 4], pages=[1])]
    result = tiny.run(make_batch(passes, **sampled([1, 3]), **ranked([3, 1], k=3)))
    assert result.sampled_finite.tolist() == [False, True]
    assert result.ranked_finite.tolist() == [True, False]
    alone = tiny.run(make_batch(passes[1:], **sampled([1]), **ranked([1], k=3)))
    assert alone.tokens[0] == result.tokens[1]
    np.testing.assert_array_equal(alone.ranked_ids, result.ranked_ids[:3])
    tiny.run(make_batch([], cleared_pages=ints([0]), cleared_embeddings=ints([7])))


@pytest.mark.parametrize("lengths", [(1, 200), (16, 17), (64, 65), (1000, 3)])
def test_long_and_short_sequences_share_a_step(tiny: TorchRunner, lengths: tuple[int, int]) -> None:
    passes, alone, first = [], [], 0
    for length in lengths:
        pages = range(first, first + -(-length // 16))
        first = pages.stop
        passes.append(Pass(tokens=[(3 * i) % 250 for i in range(length)], pages=pages))
        alone.append(last(tiny, passes[-1]))
    rows = ints([lengths[0] - 1, sum(lengths) - 1])
    assert torch.equal(tiny.logits(make_batch(passes), rows), torch.stack(alone))


def test_a_step_without_enough_memory_is_lost_and_the_next_one_runs(
    tiny: TorchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contract F7: an allocation that really fails, as torch reports it."""
    work = make_batch([Pass(tokens=[1, 2], pages=[0])], **sampled([1]))
    wanted = tiny.run(work).tokens
    with monkeypatch.context() as patched:
        patched.setattr(TorchRunner, "_answer", lambda *_: torch.empty(1 << 60, dtype=torch.uint8))
        with pytest.raises(PassFailed, match=r"out of memory: .*allocate"):
            tiny.run(work)
    assert np.array_equal(tiny.run(work).tokens, wanted)
