"""What one user may ask for per time and hold at once, as pure bookkeeping; times are seconds."""

from __future__ import annotations

import heapq
import math

import attrs

from pie.errors import UsageError

from .config import Quotas
from .uploads import Budget

_SLACK = 1e-3
"""Of a token that may be missing: what clocks and waits lose in floating point is less."""
_ARRIVING_BYTES = 64 << 20
_SWEEP = 4
"""How many users are forgotten when one comes or goes: more than one, so that the line shrinks."""


@attrs.define
class TokenBucket:
    """Gives `burst` tokens at once and `rate` per second, both above 0; starts full."""

    rate: float
    burst: float
    _level: float = attrs.field(init=False)
    _since: float = attrs.field(init=False, default=-math.inf)

    def __attrs_post_init__(self) -> None:
        self._level = self.burst

    def take(self, now: float, amount: float = 1.0) -> float:
        """0.0: taken. Else nothing is, and it may be worth asking again in so many seconds.

        Infinity for more than `burst`. A clock that goes back counts as one that stands still.
        """
        self._refill(now)
        missing = amount - self._level
        if missing <= _SLACK:
            self._level -= amount
            return 0.0
        return math.inf if amount > self.burst else missing / self.rate

    def seconds_until_full(self, now: float) -> float:
        """0.0: a new bucket would not be told apart from this one."""
        self._refill(now)
        missing = self.burst - self._level
        return 0.0 if missing <= _SLACK else missing / self.rate

    def _refill(self, now: float) -> None:
        if now > self._since:
            self._level = min(self.burst, self._level + (now - self._since) * self.rate)
            self._since = now


@attrs.define
class UserLimits:
    """What one user has taken of its quotas. Refusals are UsageErrors that name the quota."""

    quotas: Quotas
    connections: int = attrs.field(init=False, default=0)
    """Open now; counted by `Limiter`, as is the next."""
    arriving: Budget = attrs.field(init=False, factory=lambda: Budget(_ARRIVING_BYTES))
    """Long messages that its sessions have not dealt with yet."""
    in_line: bool = attrs.field(init=False, default=False)
    """To be forgotten, unless it is back by then."""
    _messages: TokenBucket = attrs.field(init=False)
    _launches: TokenBucket = attrs.field(init=False)
    _uploads: TokenBucket = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        quotas = self.quotas
        self._messages = TokenBucket(quotas.messages_per_second, quotas.message_burst)
        self._launches = _per_minute(quotas.launches_per_minute)
        self._uploads = _per_minute(quotas.uploads_per_minute)

    def message(self, now: float) -> float:
        """Take one message to an instance; not 0.0: it has to wait so long before it asks again."""
        return self._messages.take(now)

    def request(self, now: float) -> None:
        """Take one request that is answered; UsageError beyond `messages_per_second`."""
        if wait := self._messages.take(now):
            many = f"{self.quotas.messages_per_second:g} a second"
            raise _refusal("messages_per_second", many, self._messages.burst, wait)

    def launch(self, now: float) -> None:
        """Take one launch; UsageError beyond `launches_per_minute`."""
        if wait := self._launches.take(now):
            many = f"{self.quotas.launches_per_minute:g} a minute"
            raise _refusal("launches_per_minute", many, self._launches.burst, wait)

    def upload(self, now: float) -> None:
        """Take one upload of a program; UsageError beyond `uploads_per_minute`."""
        if wait := self._uploads.take(now):
            many = f"{self.quotas.uploads_per_minute:g} a minute"
            raise _refusal("uploads_per_minute", many, self._uploads.burst, wait)

    def seconds_until_fresh(self, now: float) -> float:
        """0.0: all buckets are full, as those of somebody who was never here."""
        buckets = (self._messages, self._launches, self._uploads)
        return max(bucket.seconds_until_full(now) for bucket in buckets)


def _per_minute(rate: float) -> TokenBucket:
    """A tenth of it may come at once, but one in any case."""
    return TokenBucket(rate / 60, max(1.0, rate / 10))


def _refusal(quota: str, many: str, burst: float, wait: float) -> UsageError:
    # Rounded up, so that whoever does as told is not refused again for a millisecond.
    retry = math.ceil(wait * 100) / 100
    return UsageError(
        f"quota {quota}: at most {many}, {burst:g} at once; try again in {retry:g} seconds"
    )


@attrs.define
class Limiter:
    """The limits of all users who are here or were so lately that it matters.

    A name costs memory only while it has a connection or a bucket that is not full yet. So a
    flood of invented names leaves no more behind than came within one refill.
    """

    quotas: Quotas
    _users: dict[str, UserLimits] = attrs.field(init=False, factory=dict)
    _leaving: list[tuple[float, str]] = attrs.field(init=False, factory=list)
    """A heap: who had no connection left, by the time at which all buckets should be full."""

    def enter(self, user: str, now: float) -> UserLimits:
        """Count one more connection; UsageError beyond `connections`. Each needs one `leave`."""
        self._forget(now)
        limits = self._users.get(user)
        if limits is None:
            limits = self._users[user] = UserLimits(self.quotas)
        if limits.connections >= self.quotas.connections:
            raise UsageError(
                f"quota connections: at most {self.quotas.connections} at once; "
                "try again when one is closed"
            )
        limits.connections += 1
        return limits

    def leave(self, user: str, now: float) -> None:
        """Count one connection less."""
        limits = self._users[user]
        limits.connections -= 1
        if not limits.connections and not limits.in_line:
            self._line_up(user, limits, now)
        self._forget(now)

    def __len__(self) -> int:
        """Users that are remembered."""
        return len(self._users)

    def _line_up(self, user: str, limits: UserLimits, now: float) -> None:
        limits.in_line = True
        heapq.heappush(self._leaving, (now + limits.seconds_until_fresh(now), user))

    def _forget(self, now: float) -> None:
        for _ in range(_SWEEP):
            if not self._leaving or self._leaving[0][0] > now:
                return
            _, user = heapq.heappop(self._leaving)
            limits = self._users[user]
            limits.in_line = False
            if limits.connections:
                continue
            if limits.seconds_until_fresh(now):
                self._line_up(user, limits, now)
            else:
                del self._users[user]
