"""The sampling kernels against `pie.model.sampler`, which defines the answers."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("llvmlite")

from hypothesis import given, settings
from hypothesis import strategies as st

from pie.kernels.cpu import sampling

from .rows import (
    Ask,
    asks,
    at_a_border,
    by_the_reference,
    draw,
    float32,
    kinds_of_rows,
    rank,
    ranked_by_the_reference,
)


@pytest.mark.parametrize("vocabulary", [1, 2, 7, 8, 9, 33, 511, 513, 1500])
def test_every_combination_draws_the_tokens_of_the_reference(vocabulary: int) -> None:
    """Random numbers are seldom near a border; there either side of it will do."""
    random = np.random.default_rng(vocabulary)
    total = different = 0
    for logits in kinds_of_rows(random, vocabulary):
        wanted = list(asks(random, vocabulary))
        for ask, expected in zip(wanted, by_the_reference(logits, wanted), strict=True):
            token = draw(logits, ask)
            total += 1
            if token != expected:
                different += 1
                assert at_a_border(logits, ask, token), (ask, token, expected)
    assert total == 720
    assert different <= total * 0.01


def test_a_whole_vocabulary() -> None:
    random = np.random.default_rng(5)
    for spread in (0.1, 1.0, 4.0):
        logits = (random.standard_normal(49_152) * spread).astype(np.float32)
        wanted = [*asks(random, 49_152), Ask(top_k=40, top_p=float32(0.95), uniform=0.77)]
        for ask, expected in zip(wanted, by_the_reference(logits, wanted), strict=True):
            token = draw(logits, ask)
            assert token == expected or at_a_border(logits, ask, token), ask


few_values = st.integers(-24, 24).map(lambda n: n / 4)
any_value = st.floats(width=32, allow_nan=False, allow_infinity=False)
rows = st.one_of(
    st.lists(few_values, min_size=1, max_size=70), st.lists(any_value, min_size=1, max_size=40)
)
slots = st.builds(
    Ask,
    temperature=st.one_of(st.just(0.0), st.floats(2**-20, 2**20, width=32)),
    top_k=st.integers(0, 80),
    top_p=st.one_of(st.sampled_from([-1.0, 0.0, 1.0, 2.0]), st.floats(2**-30, 1, width=32)),
    min_p=st.one_of(st.sampled_from([-1.0, 0.0, 1.0, 2.0]), st.floats(2**-30, 1, width=32)),
    uniform=st.integers(0, 2**24 - 1).map(lambda n: n / 2**24),
)


@settings(max_examples=400, deadline=None)
@given(row=rows, ask=slots)
def test_any_row_and_any_settings(row: list[float], ask: Ask) -> None:
    logits = np.array(row, np.float32)
    token = draw(logits, ask)
    assert token == by_the_reference(logits, [ask])[0] or at_a_border(logits, ask, token)


@settings(max_examples=200, deadline=None)
@given(row=rows, temperature=st.sampled_from([0.0, 0.25, 1.0, 40.0]), k=st.integers(0, 90))
def test_any_distribution(row: list[float], temperature: float, k: int) -> None:
    logits = np.array(row, np.float32)
    ids, probabilities = rank(logits, temperature, k)
    expected = ranked_by_the_reference(logits, temperature, k)
    assert ids.tolist() == expected.ids.tolist()
    np.testing.assert_allclose(probabilities, expected.probabilities, rtol=2e-5, atol=1e-37)


@pytest.mark.parametrize("k", [1, 2, 32, 1000, 49_151, 49_152, 60_000])
def test_a_distribution_of_a_whole_vocabulary(k: int) -> None:
    random = np.random.default_rng(k)
    logits = np.round(random.standard_normal(49_152) * 3, 3).astype(np.float32)  # many are equal
    ids, probabilities = rank(logits, 0.8, k)
    expected = ranked_by_the_reference(logits, 0.8, k)
    assert len(ids) == min(k, 49_152)
    assert (ids == expected.ids).all()
    np.testing.assert_allclose(probabilities, expected.probabilities, rtol=1e-5)
    if k >= 49_152:
        assert probabilities.sum(dtype=np.float64) == pytest.approx(1, abs=1e-6)


def test_equal_logits_at_the_edge_of_a_filter_go_to_the_lowest_ids() -> None:
    """Zeros of either sign are equal."""
    logits = np.array([-1, 5, 0.0, -0.0, 0.0, -0.0, 0.0, 5, 0.0, -0.0] * 3, np.float32)
    uniforms = [i / 512 for i in range(512)]
    for top_k, expected in ((2, {1, 7}), (6, {1, 7, 11, 17, 21, 27}), (8, None)):
        tokens = {draw(logits, Ask(temperature=9, top_k=top_k, uniform=u)) for u in uniforms}
        assert tokens == (expected or {1, 2, 3, 7, 11, 17, 21, 27})
    assert rank(logits, 1.0, 10)[0].tolist() == [1, 7, 11, 17, 21, 27, 2, 3, 4, 5]


def test_top_p_may_cut_among_equals_and_among_what_top_k_left_of_them() -> None:
    logits = np.zeros(40, np.float32)
    uniforms = [i / 256 for i in range(256)]
    half = {draw(logits, Ask(top_p=0.5, uniform=u)) for u in uniforms}
    assert half == set(range(20))
    of_ten = {draw(logits, Ask(top_k=10, top_p=0.5, uniform=u)) for u in uniforms}
    assert of_ten == set(range(5))
    nearly_one = float32(1 - 2**-24)
    all_of_ten = {draw(logits, Ask(top_k=10, top_p=nearly_one, uniform=u)) for u in uniforms}
    assert all_of_ten == set(range(10))


def test_extreme_filters() -> None:
    logits = np.array([0.0, 3.0, 1.0, 3.0, 3.0], np.float32)
    last = float32(1 - 2**-24)
    for ask in (
        Ask(temperature=0, uniform=last),
        Ask(top_k=1, uniform=last),
        Ask(top_p=0, uniform=last),
        Ask(top_p=float32(1e-30), uniform=last),
        Ask(min_p=1.5, uniform=last),
    ):
        assert draw(logits, ask) == 1
    assert draw(logits, Ask(min_p=1.0, uniform=last)) == 4  # it keeps all that are equal
    assert draw(logits, Ask(temperature=float32(1e-45), uniform=last)) == 4
    assert draw(logits, Ask(temperature=float32(3e38), uniform=last)) == 4
    assert draw(logits, Ask(temperature=float32(3e38), uniform=0.0)) == 0


def test_a_number_on_the_border_is_of_the_next_token() -> None:
    """The running sum has to exceed it (S3); equal weights make the borders exact."""
    for vocabulary in (4, 16, 2048):
        logits = np.full(vocabulary, -2.0, np.float32)
        for token in (0, 1, vocabulary // 2, vocabulary - 1):
            assert draw(logits, Ask(uniform=token / vocabulary)) == token


def test_a_draw_never_takes_what_has_no_weight() -> None:
    logits = np.full(3000, -500.0, np.float32)
    logits[[1000, 1700]] = 0.0
    assert {draw(logits, Ask(uniform=u / 64)) for u in range(64)} == {1000, 1700}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("vocabulary", [1, 5, 8, 64, 1027])
def test_what_is_not_finite_is_found_wherever_it_is(vocabulary: int, bad: float) -> None:
    for place in sorted({0, vocabulary // 2, vocabulary - 1}):
        logits = np.full(vocabulary, 3e38, np.float32)
        assert sampling.examine(logits.ctypes.data, vocabulary, 0.0) == 1
        logits[place] = bad
        assert sampling.examine(logits.ctypes.data, vocabulary, 0.0) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_asking_a_row_that_is_not_finite_does_no_harm(bad: float) -> None:
    for logits in (np.full(100, bad, np.float32), np.arange(100, dtype=np.float32)):
        logits[50] = bad
        for ask in (Ask(), Ask(0.0), Ask(top_k=7, top_p=0.5, min_p=0.1), Ask(top_p=0.9)):
            assert draw(logits, ask) == 0
        assert len(rank(logits, 1.0, 10)[0]) == 0


@pytest.mark.parametrize("vocabulary", [1, 8, 1003])
def test_the_cap_bends_logits_in_place(vocabulary: int) -> None:
    """As Gemma 2 has it; what is judged are the capped logits."""
    random = np.random.default_rng(vocabulary)
    logits = (random.standard_normal(vocabulary) * 40).astype(np.float32)
    expected = 30 * np.tanh(logits.astype(np.float64) / 30)
    assert sampling.examine(logits.ctypes.data, vocabulary, 30.0)
    np.testing.assert_allclose(logits, expected, rtol=2e-6, atol=1e-5)
    logits[-1] = np.inf
    assert sampling.examine(logits.ctypes.data, vocabulary, 30.0)
    assert logits[-1] == 30
    logits[-1] = np.nan
    assert not sampling.examine(logits.ctypes.data, vocabulary, 30.0)


def test_draws_are_as_frequent_as_they_are_probable() -> None:
    """Chi-square with 11 degrees of freedom: 31.3 is passed once in 1,000 sound samplers."""
    random = np.random.default_rng(7)
    logits = random.standard_normal(12).astype(np.float32)
    count = 20_000
    uniforms = random.integers(0, 2**24, count) / 2**24
    tokens = [draw(logits, Ask(temperature=float32(1.5), uniform=float(u))) for u in uniforms]
    weights = np.exp(logits.astype(np.float64) / 1.5)
    expected = count * weights / weights.sum()
    found = np.bincount(tokens, minlength=12)
    assert ((found - expected) ** 2 / expected).sum() < 31.3


def test_answers_do_not_depend_on_where_a_row_lies_or_on_scratch() -> None:
    random = np.random.default_rng(3)
    logits = random.standard_normal(777).astype(np.float32)
    for offset in range(1, 9):
        other = np.full(900, 50.0, np.float32)
        other[offset : offset + 777] = logits
        moved = other[offset : offset + 777]
        for ask in asks(random, 777):
            assert draw(moved, ask, room=900) == draw(logits, ask)
        for one, two in zip(rank(moved, 1.0, 20), rank(logits, 1.0, 20), strict=True):
            assert (one == two).all()
