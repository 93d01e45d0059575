"""Quotas of users: buckets against exact arithmetic, and forgetting that nobody can notice."""

from __future__ import annotations

import math
from fractions import Fraction

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie.errors import UsageError
from pie.server.config import Quotas
from pie.server.limits import Limiter, TokenBucket, UserLimits

SLACK = Fraction(1, 500)
"""Of a token: more than the bucket's own slack and all that floats lose in these tests."""

starts = st.floats(0, 2e9)
rates = st.floats(0.01, 5000)
bursts = st.floats(1, 10_000)
pauses = st.one_of(st.just(0.0), st.floats(0, 0.01), st.floats(0, 100))


@attrs.define
class ExactBucket:
    """What a bucket holds, in fractions, worked out from the beginning each time."""

    rate: Fraction
    burst: Fraction
    taken: list[tuple[Fraction, Fraction]] = attrs.field(factory=list)

    def level(self, now: float) -> Fraction:
        level, since = self.burst, Fraction(0)
        for when, amount in [*self.taken, (Fraction(now), Fraction(0))]:
            level = min(self.burst, level + (when - since) * self.rate) - amount
            since = when
        return level


@given(
    start=starts,
    rate=rates,
    burst=bursts,
    steps=st.lists(st.tuples(pauses, st.floats(0.5, 20)), max_size=30),
)
def test_a_bucket_gives_what_exact_arithmetic_gives(
    start: float, rate: float, burst: float, steps: list[tuple[float, float]]
) -> None:
    bucket = TokenBucket(rate, burst)
    exact = ExactBucket(Fraction(rate), Fraction(burst))
    now = start
    for pause, amount in steps:
        now += pause
        level = exact.level(now)

        wait = bucket.take(now, amount)

        if wait == 0.0:
            assert level >= Fraction(amount) - SLACK
            exact.taken.append((Fraction(now), Fraction(amount)))
        elif amount > burst:
            assert wait == math.inf
        else:
            assert level < Fraction(amount)
            missing = Fraction(amount) - level
            assert abs(Fraction(wait) * Fraction(rate) - missing) < SLACK


@given(start=starts, rate=rates, burst=bursts, amounts=st.lists(st.floats(0.5, 50), max_size=20))
def test_waiting_as_long_as_told_is_enough(
    start: float, rate: float, burst: float, amounts: list[float]
) -> None:
    """Or somebody who does as told would be refused again, for a rounding."""
    bucket = TokenBucket(rate, burst)
    now = start
    for amount in amounts:
        amount = min(amount, burst)
        wait = bucket.take(now, amount)
        if wait:
            now += wait
            assert bucket.take(now, amount) == 0.0


@given(start=starts, rate=rates, burst=bursts, steps=st.lists(pauses, max_size=50))
def test_no_more_than_burst_and_rate_is_ever_given(
    start: float, rate: float, burst: float, steps: list[float]
) -> None:
    bucket = TokenBucket(rate, burst)
    now, taken = start, 0
    for pause in steps:
        now += pause
        taken += bucket.take(now) == 0.0

    assert taken <= Fraction(burst) + Fraction(rate) * (Fraction(now) - Fraction(start)) + SLACK


def test_what_is_refused_is_not_taken() -> None:
    bucket = TokenBucket(rate=1, burst=10)
    bucket.take(0, 8)

    assert bucket.take(0, 5) == 3
    assert bucket.take(0, 2) == 0


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(rate=1, burst=2)
    bucket.take(100, 2)

    assert bucket.take(50) == 1
    assert bucket.take(100) == 1
    assert bucket.take(101) == 0


QUOTAS = Quotas(
    connections=2,
    messages_per_second=2,
    message_burst=3,
    launches_per_minute=120,
    uploads_per_minute=6,
)


def refusal(ask: object, *arguments: object) -> str:
    assert callable(ask)
    with pytest.raises(UsageError) as caught:
        ask(*arguments)
    return str(caught.value)


def test_requests_and_messages_share_a_quota() -> None:
    """One that floods with messages has no requests left, and the other way around."""
    limits = UserLimits(QUOTAS)
    limits.request(0)
    assert limits.message(0) == 0
    limits.request(0)

    assert limits.message(0) == 0.5
    assert refusal(limits.request, 0) == (
        "quota messages_per_second: at most 2 a second, 3 at once; try again in 0.5 seconds"
    )
    limits.request(0.5)


def test_launches_come_a_tenth_of_a_minute_at_once() -> None:
    limits = UserLimits(QUOTAS)
    for _ in range(12):
        limits.launch(0)

    assert refusal(limits.launch, 0.126) == (
        "quota launches_per_minute: at most 120 a minute, 12 at once; try again in 0.38 seconds"
    )
    limits.launch(0.506)


def test_a_small_quota_still_allows_one() -> None:
    """A tenth of six uploads a minute is less than one."""
    limits = UserLimits(QUOTAS)
    limits.upload(0)

    assert refusal(limits.upload, 0) == (
        "quota uploads_per_minute: at most 6 a minute, 1 at once; try again in 10 seconds"
    )


def test_one_connection_too_many_is_refused_until_one_is_closed() -> None:
    limiter = Limiter(QUOTAS)
    limiter.enter("ann", 0)
    limiter.enter("ann", 0)

    assert refusal(limiter.enter, "ann", 0) == (
        "quota connections: at most 2 at once; try again when one is closed"
    )
    limiter.enter("bob", 0)
    limiter.leave("ann", 0)
    limiter.enter("ann", 0)


def test_connections_of_a_user_share_its_quotas() -> None:
    limiter = Limiter(QUOTAS)

    assert limiter.enter("ann", 0) is limiter.enter("ann", 0)


def test_closing_and_coming_back_wins_nothing() -> None:
    limiter = Limiter(QUOTAS)
    limiter.enter("ann", 0).upload(0)
    limiter.leave("ann", 0)

    assert "try again in 9.9 seconds" in refusal(limiter.enter("ann", 0.1).upload, 0.1)


def test_a_flood_of_invented_names_leaves_nothing_behind() -> None:
    limiter = Limiter(QUOTAS)
    for number in range(1000):
        now = number / 10
        limiter.enter(f"user {number}", now).upload(now)
        limiter.leave(f"user {number}", now)
        # An upload is forgotten after ten seconds, in which a hundred others come.
        assert len(limiter) <= 102

    limiter.enter("somebody", 1000)
    for _ in range(30):
        limiter.enter("else", 1000)
        limiter.leave("else", 1000)
    assert len(limiter) == 1


def test_names_that_did_nothing_are_forgotten_at_once() -> None:
    limiter = Limiter(QUOTAS)
    for number in range(100):
        limiter.enter(f"user {number}", 0)
        limiter.leave(f"user {number}", 0)

    assert len(limiter) == 0


Step = tuple[str, str, float]
steps = st.lists(
    st.tuples(
        st.sampled_from(["enter", "leave", "message", "request", "launch", "upload"]),
        st.sampled_from("abc"),
        st.sampled_from([0.0, 0.25, 1.0, 8.0, 30.0]),
    ),
    max_size=80,
)


@given(steps)
def test_forgetting_is_noticed_by_nobody(steps: list[Step]) -> None:
    """Against a naive model that keeps the limits of everybody for ever."""
    limiter = Limiter(QUOTAS)
    forever = {user: UserLimits(QUOTAS) for user in "abc"}
    present: dict[str, list[UserLimits]] = {user: [] for user in "abc"}
    now = 1000.0
    for action, user, pause in steps:
        now += pause
        if action == "enter":
            if len(present[user]) == QUOTAS.connections:
                refusal(limiter.enter, user, now)
            else:
                present[user].append(limiter.enter(user, now))
        elif action == "leave":
            if present[user]:
                present[user].pop()
                limiter.leave(user, now)
        elif present[user]:
            assert outcome(present[user][-1], action, now) == outcome(forever[user], action, now)
        assert len(limiter) >= sum(map(bool, present.values()))

    for user, open_connections in present.items():
        for _ in open_connections:
            limiter.leave(user, now)
    for _ in range(3):
        limiter.enter("d", now + 60)
        limiter.leave("d", now + 60)
    assert len(limiter) == 0


def outcome(limits: UserLimits, action: str, now: float) -> object:
    try:
        return getattr(limits, action)(now)
    except UsageError as error:
        return str(error)
