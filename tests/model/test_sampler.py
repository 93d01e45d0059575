"""The batched sampler against rules S1 to S3, written out plainly for one row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pie.model.sampler import Draws, rank, sample

Row = NDArray[np.float32]


def kept_by_the_rules(
    logits: Row, temperature: float, top_k: int, top_p: float, min_p: float
) -> tuple[list[int], NDArray[np.float64]]:
    """Kept ids in ascending order, and the weights of all ids."""
    scaled = logits.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max())
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    if 0 < top_k < len(logits):
        order = order[:top_k]
    if top_p < 1:
        mass, needed = 0.0, top_p * sum(weights[i] for i in order)
        for count, token in enumerate(order, 1):
            mass += weights[token]
            if mass >= needed:
                order = order[:count]
                break
    return sorted(i for i in order if weights[i] >= min_p), weights


def drawn_by_the_rules(
    logits: Row, temperature: float, top_k: int, top_p: float, min_p: float, uniform: float
) -> int:
    if temperature == 0 or top_p <= 0 or min_p > 1:
        return int(np.argmax(logits))
    kept, weights = kept_by_the_rules(logits, temperature, top_k, top_p, min_p)
    target = uniform * sum(weights[i] for i in kept)
    mass = 0.0
    for token in kept:
        mass += weights[token]
        if mass > target:
            return token
    raise AssertionError("the uniform is below 1")


def draws(*slots: tuple[float, int, float, float, float]) -> Draws:
    columns = [torch.tensor(column) for column in zip(*slots, strict=True)]
    t, k, p, m, u = columns
    return Draws(
        temperature=t.double(),
        top_k=k.long(),
        top_p=p.double(),
        min_p=m.double(),
        uniform=u.double(),
    )


def draw(logits: list[float], *slots: tuple[float, int, float, float, float]) -> list[int]:
    rows = torch.zeros(len(slots), dtype=torch.long)
    found: list[int] = sample(torch.tensor([logits]), rows, draws(*slots)).tolist()
    return found


# Multiples of 1/4 make ties common; thirds as shares keep sums off the borders of sets.
slot = st.tuples(
    st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    st.integers(0, 9),
    st.sampled_from([-0.5, 0.0, 0.1234567, 0.5123, 0.91234, 0.99912, 1.0, 1.5]),
    st.sampled_from([0.0, 0.0123, 0.1234, 0.71234, 1.5]),
    st.integers(0, 2**24 - 1).map(lambda n: n / 2**24),
)
row = st.lists(st.integers(-24, 24).map(lambda n: n / 4), min_size=7, max_size=7)


@settings(max_examples=300, deadline=None)
@given(logits=st.lists(row, min_size=1, max_size=4), slots=st.lists(slot, min_size=1, max_size=6))
def test_every_slot_gets_what_the_rules_say(
    logits: list[list[float]], slots: list[tuple[float, int, float, float, float]]
) -> None:
    rows = [i % len(logits) for i in range(len(slots))]
    found = sample(torch.tensor(logits), torch.tensor(rows), draws(*slots))
    for token, row_number, (t, k, p, m, u) in zip(found, rows, slots, strict=True):
        logit = np.array(logits[row_number], np.float32)
        weights = np.exp(logit.astype(np.float64) - logit.max())
        if t and token != drawn_by_the_rules(logit, t, k, p, m, u):
            # Only the order of a float64 sum may move a border, and then by this much.
            nudged = {
                drawn_by_the_rules(logit, t, k, p * a, m, min(max(u * b, 0), 1 - 2**-25))
                for a in (1 - 1e-12, 1 + 1e-12)
                for b in (1 - 1e-12, 1 + 1e-12)
            }
            assert token in nudged, weights
        elif not t:
            assert token == int(np.argmax(logit))


@pytest.mark.parametrize("seed", range(5))
def test_a_whole_vocabulary_is_filtered_by_the_rules(seed: int) -> None:
    """Flat rows and steep ones."""
    random = np.random.default_rng(seed)
    logits = (random.standard_normal((3, 3000)) * [[0.1], [1.0], [6.0]]).astype(np.float32)
    settings_of_slot = [
        (1.0, 0, 0.95, 0.0), (1.0, 500, 0.7, 0.0), (0.7, 40, 1.0, 0.0), (1.3, 0, 1.0, 0.05),
        (1.0, 2999, 0.999, 0.001), (2.0, 0, 1.0, 0.0),
    ]  # fmt: skip
    slots = [(*s, float(u)) for s in settings_of_slot for u in random.random(4).astype(np.float32)]
    for number, logit in enumerate(logits):
        rows = torch.full((len(slots),), number)
        found = sample(torch.from_numpy(logits), rows, draws(*slots)).tolist()
        assert found == [drawn_by_the_rules(logit, *one) for one in slots]


def test_greedy_takes_the_lowest_of_equal_ids() -> None:
    logits = [0.0, 3.0, 1.0, 3.0, 3.0]
    nearly_one = 1 - 2**-24
    greedy_ways = [
        (0.0, 0, 1.0, 0.0, nearly_one),
        (1.0, 1, 1.0, 0.0, nearly_one),
        (1.0, 0, 0.0, 0.0, nearly_one),
        (1.0, 0, -1.0, 0.0, nearly_one),
        (1.0, 0, 1.0, 1.5, nearly_one),
    ]
    assert draw(logits, *greedy_ways) == [1] * 5


def test_ties_at_the_edge_of_a_filter_go_to_the_lowest_id() -> None:
    logits = [1.0, 2.0, 1.0, 1.0]
    assert {draw(logits, (1.0, 2, 1.0, 0.0, u / 16))[0] for u in range(16)} == {0, 1}
    # min-p has no order among equals: it keeps them all.
    assert {draw(logits, (1.0, 0, 1.0, 1.0, u / 16))[0] for u in range(16)} == {1}
    assert {draw(logits, (1.0, 0, 1.0, 0.3, u / 16))[0] for u in range(16)} == {0, 1, 2, 3}


def test_top_p_keeps_the_token_that_crosses() -> None:
    logits = [float(x) for x in np.log([0.5, 0.3, 0.2])]
    assert {draw(logits, (1.0, 0, 0.6, 0.0, u / 64))[0] for u in range(64)} == {0, 1}
    # Renormalised after top-k: 0.5 / 0.8 already reaches 0.6.
    assert {draw(logits, (1.0, 2, 0.6, 0.0, u / 64))[0] for u in range(64)} == {0}


def test_a_draw_goes_up_the_ids() -> None:
    logits = [float(x) for x in np.log([0.25, 0.5, 0.25])]
    uniforms = [0.0, 0.2, 0.3, 0.74, 0.76, 1 - 2**-24]
    assert draw(logits, *((1.0, 0, 1.0, 0.0, u) for u in uniforms)) == [0, 0, 1, 1, 2, 2]


def test_a_tiny_temperature_is_nearly_greedy_and_a_huge_one_nearly_flat() -> None:
    logits = [1.0, 1.5, -30.0]
    assert draw(logits, (1e-30, 0, 1.0, 0.0, 0.9999)) == [1]
    assert draw(logits, (1e30, 0, 1.0, 0.0, 0.9999)) == [2]


@settings(max_examples=200, deadline=None)
@given(
    logits=st.lists(row, min_size=1, max_size=3),
    asked=st.lists(
        st.tuples(st.sampled_from([0.0, 0.01, 1.0, 3.0]), st.integers(0, 9)), min_size=1, max_size=5
    ),
)
def test_distributions_are_ranked_over_the_full_vocabulary(
    logits: list[list[float]], asked: list[tuple[float, int]]
) -> None:
    """Contract S2: by probability, then logit, then lowest id; not renormalised."""
    rows = [i % len(logits) for i in range(len(asked))]
    found = rank(
        torch.tensor(logits),
        torch.tensor(rows),
        torch.tensor([t for t, _ in asked], dtype=torch.float64),
        torch.tensor([k for _, k in asked]),
    )
    assert found.starts[0] == 0
    for i, (row_number, (temperature, k)) in enumerate(zip(rows, asked, strict=True)):
        logit = np.array(logits[row_number], np.float64)
        part = slice(found.starts[i], found.starts[i + 1])
        order = sorted(range(len(logit)), key=lambda t: (-logit[t], t))[:k]
        assert found.ids[part].tolist() == order
        weights = np.exp((logit - logit.max()) / (temperature or 1.0))
        want = (weights / weights.sum())[order]
        if temperature == 0:
            want = np.array([1.0] + [0.0] * 8)[: len(order)]
        np.testing.assert_allclose(found.probabilities[part], want, rtol=1e-6, atol=1e-38)


def test_probabilities_that_vanish_are_still_ranked_by_logit() -> None:
    logits = torch.tensor([[0.0, -5000.0, -4000.0, -6000.0]])
    found = rank(logits, torch.tensor([0]), torch.ones(1).double(), torch.tensor([4]))
    assert found.ids.tolist() == [0, 2, 1, 3]
    assert found.probabilities.tolist() == [1.0, 0.0, 0.0, 0.0]


def test_no_slots_give_no_answers() -> None:
    nothing = torch.zeros(0, dtype=torch.long)
    found = rank(torch.zeros(1, 4), nothing, torch.zeros(0).double(), nothing)
    assert (found.ids.tolist(), found.starts.tolist()) == ([], [0])


def test_more_slots_than_are_computed_at_once_are_all_answered() -> None:
    logits = torch.eye(200) * 50
    rows = torch.arange(200)
    slots = [(1.0, 0, 1.0, 0.0, 0.5)] * 200
    assert sample(logits, rows, draws(*slots)).tolist() == list(range(200))
    found = rank(logits, rows, torch.ones(200).double(), torch.ones(200, dtype=torch.long))
    assert found.ids.tolist() == list(range(200))
