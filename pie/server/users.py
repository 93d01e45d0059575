"""The users file: who may log in with which public keys."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from pie.config import MIB
from pie.errors import UsageError

from .keys import PublicKey, parse_key
from .names import check_name, check_user
from .private_files import Stamp, read_private, stamp_of
from .toml import parse_toml

log = logging.getLogger(__name__)

Keys = dict[str, PublicKey]
"""Of one user, by name."""

MAX_KEYS = 32
"""Of one user: a login may have to try them all."""
MAX_FILE = 16 * MIB


def read_users(path: Path) -> dict[str, Keys]:
    """All users of the file; UsageError if it is unsafe, unreadable or not valid."""
    return _read(path)[0]


def _read(path: Path) -> tuple[dict[str, Keys], Stamp]:
    content, stamp = read_private(path, MAX_FILE)
    try:
        return _parse(content), stamp
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _parse(content: bytes) -> dict[str, Keys]:
    users = _table(parse_toml(content), "users")
    return {name: _keys(name, user) for name, user in users.items()}


def _keys(name: str, user: object) -> Keys:
    place = f"users.{name!r}"
    try:
        check_user(name)
        keys = _table(user, "keys")
        check_count(len(keys))
    except UsageError as error:
        raise UsageError(f"[{place}]: {error}") from None
    return {key: _key(f"[{place}.keys] {key!r}", key, text) for key, text in keys.items()}


def _key(place: str, name: str, text: object) -> PublicKey:
    try:
        check_name(name, "a key's name")
        if not isinstance(text, str):
            raise UsageError(f"a key is a text, not of type {type(text).__name__}")
        return parse_key(text)
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from None


def _table(value: object, name: str) -> Mapping[str, Any]:
    """The one thing that may be in a table, itself a table."""
    if not isinstance(value, dict) or not isinstance(inner := value.get(name, {}), dict):
        raise UsageError("the layout is [users.NAME.keys], then KEYNAME = PUBLIC KEY for each key")
    if unknown := next((key for key in value if key != name), None):
        raise UsageError(f"unknown entry {unknown!r}; only '{name}' may be there")
    return inner


def check_count(keys: int) -> None:
    if keys > MAX_KEYS:
        raise UsageError(f"{keys} keys of one user; at most {MAX_KEYS} are allowed")


@attrs.frozen
class _Reading:
    """What came of reading the file when it was as `stamp` tells."""

    stamp: Stamp | None
    users: Mapping[str, Keys]
    problem: str | None = None


@attrs.define
class Users:
    """The users file as it is now: a change counts from the next login on.

    A file that has become unreadable, unsafe or invalid has no users at all, which is logged once.
    """

    path: Path
    _last: _Reading | None = None

    def keys_of(self, user: str) -> Mapping[str, PublicKey]:
        """By name; empty if there is no such user. UsageError if the file cannot be used."""
        reading = self._current()
        if reading.problem is not None:
            raise UsageError(reading.problem)
        return reading.users.get(user, {})

    def refresh(self) -> None:
        """Read the file if it has changed, a few milliseconds for a hundred keys.

        Safe in a thread: what follows on the loop then finds it read.
        """
        self._current()

    def _current(self) -> _Reading:
        last = self._last
        if last is None or stamp_of(self.path) != last.stamp or last.stamp is None:
            # One assignment, so that whoever reads in another thread sees all of it or nothing.
            last = self._last = self._read_again(last)
        return last

    def _read_again(self, last: _Reading | None) -> _Reading:
        stamp = stamp_of(self.path)
        try:
            users, stamp = _read(self.path)
        except UsageError as error:
            if last is None or last.problem != str(error):
                log.error("nobody can log in: %s", error)
            return _Reading(stamp, {}, str(error))
        log.info("%s: %d users may log in", self.path, len(users))
        return _Reading(stamp, users)
