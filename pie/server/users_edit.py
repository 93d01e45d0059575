"""Changing the users file, as `pie auth` does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs

from pie.errors import UsageError

from .keys import parse_key
from .names import check_name, check_user
from .private_files import locked, write_private
from .users import Keys, check_count, read_users

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_HEADER = """\
# Who may log in, and the public keys they prove it with. `pie auth` writes this file: other
# comments are lost when it does.
"""


def add_key(path: Path, user: str, text: str, name: str | None = None) -> str:
    """Give a user one more key, and return the key's name; the file is made if need be."""
    key = parse_key(text)
    name = key.default_name if name is None else name
    check_user(user)
    check_name(name, "a key's name")
    with _changed(path) as users:
        keys = users.setdefault(user, {})
        for other, known in keys.items():
            if known.openssh == key.openssh:
                raise UsageError(f"user {user!r} has this key already, as {other!r}")
        if name in keys:
            raise UsageError(
                f"user {user!r} has another key named {name!r}: remove that first, or name this one"
            )
        check_count(len(keys) + 1)
        keys[name] = attrs.evolve(key, text=key.openssh)
    return name


def remove_key(path: Path, user: str, name: str | None = None) -> tuple[str, ...]:
    """Take a key from a user, or the user with all; the names of the keys that are gone."""
    check_user(user)
    with _changed(path) as users:
        if user not in users:
            raise UsageError(f"there is no user {user!r}: pie auth list shows who is there")
        keys = users[user]
        if name is not None and name not in keys:
            known = ", ".join(map(repr, keys))
            raise UsageError(f"user {user!r} has no key {name!r}; there are {known or 'none'}")
        gone = tuple(keys) if name is None else (name,)
        for each in gone:
            del keys[each]
        if not keys:
            del users[user]
    return gone


@contextmanager
def _changed(path: Path) -> Iterator[dict[str, Keys]]:
    """The users, to be changed in place and written back."""
    with locked(path):
        users = read_users(path) if path.exists() else {}
        yield users
        write_private(path, _dump(users))


def _dump(users: Mapping[str, Keys]) -> bytes:
    lines = [_HEADER]
    for user in sorted(users):
        lines.append(f"[users.{_quoted(user)}.keys]")
        lines += [f"{_quoted(name)} = {_text(key.text)}" for name, key in users[user].items()]
        lines.append("")
    return "\n".join(lines).encode()


def _quoted(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _text(text: str) -> str:
    """A TOML text: like one of JSON, in which only DEL need not be escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
