"""What waits to be compiled is bounded in bytes, for all and for each."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from pie.errors import UsageError
from pie.server.arrivals import Arrivals


def test_the_same_content_counts_once() -> None:
    arrivals = Arrivals(8)
    first, again = bytes([1, 2]), bytes([1, 2])

    with arrivals.holding("ann", "key", first) as one:
        with arrivals.holding("bob", "key", again) as two:
            assert one is two is first
            assert arrivals.held == 2
        assert arrivals.held == 2
    assert arrivals.held == 0


def test_more_than_the_limit_is_refused() -> None:
    arrivals = Arrivals(8)
    with ExitStack() as stack:
        for user in ("a", "b", "c", "d"):
            stack.enter_context(arrivals.holding(user, user, b"12"))
        with pytest.raises(UsageError, match=r"8 bytes of uploads wait .* at most 8 may"):
            stack.enter_context(arrivals.holding("e", "e", b"1"))
        assert arrivals.held == 8
    with arrivals.holding("e", "e", b"123456789"):
        assert arrivals.held == 9, "one upload is taken in any case"


def test_one_user_leaves_room_for_others() -> None:
    arrivals = Arrivals(8)
    with arrivals.holding("a", 1, b"1"), arrivals.holding("a", 2, b"1"):
        with pytest.raises(UsageError, match=r"2 bytes of your uploads wait .* at most 2 may"):
            arrivals.holding("a", 3, b"1").__enter__()
        with arrivals.holding("b", 3, b"12345"):
            assert arrivals.held == 7
