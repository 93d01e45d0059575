"""How many KV pages each user has, against how many it may have. A pure core."""

from __future__ import annotations

from weakref import WeakValueDictionary

import attrs

from pie.errors import LimitExceeded


def to_spare(free: int, capacity: int) -> int:
    """How much of what is `free` may go to who can do without it, so that who comes next finds
    room: a quarter of it, and nothing of the last quarter of all.
    """
    return max(0, min(free // 4, free - capacity // 4))


@attrs.define(eq=False)
class Holdings:
    """The KV pages of one user: one for each handle that an instance has or waits for, and one
    for each page of an export. Pages that are shared count as often as they are referred to.
    """

    user: str
    limit: int | None
    pages: int = 0

    def take(self, count: int, call: str) -> None:
        """Count what `call` asks for, before it is granted. LimitExceeded beyond the limit."""
        if self.limit is not None and self.pages + count > self.limit:
            raise LimitExceeded(
                f"{call}: user {self.user!r} has {self.pages} KV pages in instances and exports "
                f"and asks for {count} more, the limit is {self.limit} (max_pages_per_user)"
            )
        self.pages += count

    def spare(self, count: int) -> int:
        """As many of `count` as leave the user enough."""
        if self.limit is None:
            return count
        return min(count, to_spare(self.limit - self.pages, self.limit))

    def give_back(self, count: int) -> None:
        """They are let go, or were not granted after all."""
        self.pages -= count


@attrs.define(eq=False)
class Quotas:
    """The holdings of all users who have anything."""

    limit: int | None
    _of: WeakValueDictionary[str, Holdings] = attrs.field(factory=WeakValueDictionary, init=False)

    def of(self, user: str) -> Holdings:
        """Those of a user, for as long as a space or an export refers to them."""
        found = self._of.get(user)
        if found is None:
            found = self._of[user] = Holdings(user, self.limit)
        return found

    def all(self) -> list[Holdings]:
        return list(self._of.values())
