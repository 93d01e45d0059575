"""The key-value store of each user: in memory, or in one SQLite file (contract X3, R7)."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any, Protocol, assert_never

import attrs
import trio

from pie.errors import LimitExceeded, UsageError
from pie.mailbox import answering, draining
from pie.messages import DeleteKey, GetKey, ListKeys, SetKey, StoreMessage
from pie.offload import Offload


class KeyValues(Protocol):
    """Where the pairs are. Called one at a time, from any thread."""

    def get(self, user: str, key: str) -> str | None: ...

    def set(self, user: str, key: str, value: str) -> None: ...

    def delete(self, user: str, key: str) -> None: ...

    def keys(self, user: str) -> list[str]: ...

    def size(self, user: str) -> int:
        """Bytes of all keys and values of a user."""
        ...

    def close(self) -> None: ...


@attrs.define(eq=False)
class MemoryKeyValues:
    """Pairs that end with the engine."""

    _pairs: dict[str, dict[str, str]] = attrs.field(factory=dict)

    def get(self, user: str, key: str) -> str | None:
        return self._pairs.get(user, {}).get(key)

    def set(self, user: str, key: str, value: str) -> None:
        self._pairs.setdefault(user, {})[key] = value

    def delete(self, user: str, key: str) -> None:
        self._pairs.get(user, {}).pop(key, None)

    def keys(self, user: str) -> list[str]:
        return sorted(self._pairs.get(user, {}))

    def size(self, user: str) -> int:
        return sum(_size(key, value) for key, value in self._pairs.get(user, {}).items())

    def close(self) -> None:
        """Nothing to give back."""


class SqliteKeyValues:
    """Pairs in one SQLite file; a set value survives a kill of the process.

    UsageError when the file cannot be read or written: it is full, damaged or locked.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        except sqlite3.Error as error:
            raise self._cannot(error) from error
        self._run("PRAGMA journal_mode = WAL")
        self._run("PRAGMA synchronous = NORMAL")
        self._run(
            "CREATE TABLE IF NOT EXISTS pairs (user TEXT, key TEXT, value TEXT NOT NULL,"
            " PRIMARY KEY (user, key)) WITHOUT ROWID"
        )

    def get(self, user: str, key: str) -> str | None:
        rows = self._run("SELECT value FROM pairs WHERE user = ? AND key = ?", user, key)
        return rows[0] if rows else None

    def set(self, user: str, key: str, value: str) -> None:
        self._run("INSERT OR REPLACE INTO pairs VALUES (?, ?, ?)", user, key, value)

    def delete(self, user: str, key: str) -> None:
        self._run("DELETE FROM pairs WHERE user = ? AND key = ?", user, key)

    def keys(self, user: str) -> list[str]:
        return self._run("SELECT key FROM pairs WHERE user = ? ORDER BY key", user)

    def size(self, user: str) -> int:
        sizes = "LENGTH(CAST(key AS BLOB)) + LENGTH(CAST(value AS BLOB))"
        (total,) = self._run(f"SELECT TOTAL({sizes}) FROM pairs WHERE user = ?", user)
        return int(total)

    def _run(self, statement: str, *values: str) -> list[Any]:
        """The first column of what `statement` gives."""
        try:
            return [row[0] for row in self._db.execute(statement, values).fetchall()]
        except sqlite3.Error as error:
            raise self._cannot(error) from error

    def _cannot(self, error: sqlite3.Error) -> UsageError:
        return UsageError(f"cannot keep state in {self._path}: {error}")

    def close(self) -> None:
        self._db.close()


@attrs.define(eq=False)
class Store:
    """Answers one question after the other, so that everybody reads what was written."""

    _mailbox: trio.MemoryReceiveChannel[StoreMessage]
    _pairs: KeyValues
    _offload: Offload
    _max_user_bytes: int
    _used: dict[str, int] = attrs.field(factory=dict)
    """Bytes of the users that have written since the start."""

    async def run(self) -> None:
        with draining(self._mailbox), closing(self._pairs):
            async for message in self._mailbox:
                with answering(message):
                    await self._handle(message)

    async def _handle(self, message: StoreMessage) -> None:
        match message:
            case GetKey(user, key):
                message.reply.answer(await self._offload(self._pairs.get, user, key))
            case SetKey(user, key, value):
                await self._offload(self._set, user, key, value)
                message.reply.answer(None)
            case DeleteKey(user, key):
                await self._offload(self._delete, user, key)
                message.reply.answer(None)
            case ListKeys(user):
                message.reply.answer(await self._offload(self._pairs.keys, user))
            case _:
                assert_never(message)

    def _set(self, user: str, key: str, value: str) -> None:
        used = self._used_without(user, key) + _size(key, value)
        if used > self._max_user_bytes:
            raise LimitExceeded(
                f"store-set: user {user!r} would have {used} bytes of keys and values, "
                f"the limit is {self._max_user_bytes} (max_store_bytes)"
            )
        self._pairs.set(user, key, value)
        self._used[user] = used

    def _delete(self, user: str, key: str) -> None:
        used = self._used_without(user, key)
        self._pairs.delete(user, key)
        self._used[user] = used

    def _used_without(self, user: str, key: str) -> int:
        if user not in self._used:
            self._used[user] = self._pairs.size(user)
        value = self._pairs.get(user, key)
        return self._used[user] - (0 if value is None else _size(key, value))


def _size(key: str, value: str) -> int:
    return len(key.encode()) + len(value.encode())
