"""Stop conditions: what matches, and what must be held back because it may match yet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferlet import Stop, max_tokens, stop_text, stop_tokens

TEXTS = st.text("ab", min_size=1, max_size=4)


def test_the_longest_matching_sequence_counts() -> None:
    stop = stop_tokens([3], [2, 3], [9, 9])
    assert stop.matched([1, 2, 3]) == 2
    assert stop.matched([2, 3, 4]) == 0
    assert stop.matched([3]) == 1


def test_only_a_proper_beginning_of_a_sequence_is_begun() -> None:
    stop = stop_tokens([1, 2, 3], [2, 9])
    assert stop.begun([5, 1, 2]) == 2
    assert stop.begun([1, 2, 3]) == 0
    assert stop.begun([]) == 0


def test_the_first_text_that_appears_counts() -> None:
    assert stop_text("end", "fin").found("so fin end") == 3
    assert stop_text("end").found("en d") == -1


def test_conditions_combine() -> None:
    both = max_tokens(5) | stop_text("x") | max_tokens(3) | stop_tokens([1])
    assert both == Stop(sequences=((1,),), texts=("x",), limit=3)


@pytest.mark.parametrize("wrong", [lambda: stop_text(""), lambda: stop_tokens([])])
def test_a_stop_that_would_match_at_once_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="empty stop sequence"):
        wrong()  # type: ignore[operator]


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="limit of 0 tokens"):
        max_tokens(0)


@given(st.lists(TEXTS, min_size=1, max_size=3), st.text("abc", max_size=20))
def test_what_is_held_back_covers_every_later_match(stops: list[str], text: str) -> None:
    """Given out character by character, a text never contains a part of a match."""
    stop, given_out, seen = stop_text(*stops), 0, ""
    for character in text:
        seen += character
        place = stop.found(seen[given_out:])
        if place >= 0:
            assert given_out + place == min(at for s in stops if (at := seen.find(s)) >= 0)
            return
        given_out = len(seen) - stop.held(seen[given_out:])
    assert all(s not in text for s in stops)
