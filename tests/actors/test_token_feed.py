"""A feed of tokens is ready while some have not been taken, and from its end on."""

from __future__ import annotations

from pie.messages import TokenFeed
from pie.messages.decoding import DecodingEnd


def test_who_takes_tokens_before_being_told_of_them_is_not_told() -> None:
    """They are there a moment before: a guest that asked for the next would be given none."""
    feed = TokenFeed()
    feed.tokens += [1, 2]
    feed.taken = 2
    feed.nudge()
    assert not feed.ready()

    feed.tokens.append(3)
    feed.nudge()
    assert feed.ready()


def test_the_end_is_told_whatever_was_taken() -> None:
    end = DecodingEnd()
    end.feed.tokens.append(1)
    end.feed.taken = 1
    end.answer(None)
    assert end.feed.ready()
