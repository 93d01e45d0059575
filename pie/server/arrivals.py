"""Uploads that wait to be checked and stored: each content once, and not too much of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

import attrs

from pie.errors import UsageError

_SHARE = 4
"""What a part of the room one user may fill, beside the first upload."""


@attrs.define(eq=False)
class _Content:
    data: bytes
    user: str
    """For whom it counts: who brought it first."""
    waiting: int = 0


@attrs.define(eq=False)
class Arrivals:
    """Contents by key: at most `limit` bytes, of one user a quarter of that, or one upload."""

    limit: int
    _contents: dict[Hashable, _Content] = attrs.field(factory=dict)
    _by_user: Counter[str] = attrs.field(factory=Counter)
    """Bytes."""

    @property
    def held(self) -> int:
        """Bytes."""
        return self._by_user.total()

    def _check(self, user: str, size: int) -> None:
        """UsageError if a content of this size would be too much now."""
        theirs = self._by_user[user]
        share = self.limit // _SHARE
        if theirs and theirs + size > share:
            raise UsageError(
                f"{theirs} bytes of your uploads wait to be compiled, and at most {share} may: "
                "try again later"
            )
        if self.held and self.held + size > self.limit:
            raise UsageError(
                f"{self.held} bytes of uploads wait to be compiled, and at most {self.limit} may: "
                "try again later"
            )

    @contextmanager
    def holding(self, user: str, key: Hashable, data: bytes) -> Iterator[bytes]:
        """Hold `data`, or what is held under this key already, which must be the same.

        Raises UsageError if it would be too much.
        """
        content = self._contents.get(key)
        if content is None:
            self._check(user, len(data))
            content = self._contents[key] = _Content(data, user)
            self._by_user[user] += len(data)
        del data
        content.waiting += 1
        try:
            yield content.data
        finally:
            content.waiting -= 1
            if not content.waiting:
                self._let_go(key, content)

    def _let_go(self, key: Hashable, content: _Content) -> None:
        del self._contents[key]
        self._by_user[content.user] -= len(content.data)
        if not self._by_user[content.user]:
            del self._by_user[content.user]
