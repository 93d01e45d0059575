"""What the program library knows, in SQLite: contents, their names, and who has uploaded them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from pie.errors import UsageError

from .program_names import ProgramName, Version

EVERYBODY = ""
"""The owner of installed names; no user is called so."""
LAYOUT = 1
"""Of the tables; another one is of another version of Pie."""
_PATIENCE_SECONDS = 30.0

_TABLES = """
CREATE TABLE programs (
    hash TEXT PRIMARY KEY, bytes INTEGER NOT NULL, added REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE names (
    owner TEXT, namespace TEXT, name TEXT, version TEXT,
    hash TEXT NOT NULL REFERENCES programs, added REAL NOT NULL,
    PRIMARY KEY (owner, namespace, name, version)
) WITHOUT ROWID;
CREATE TABLE holders (
    user TEXT, hash TEXT NOT NULL REFERENCES programs, used REAL NOT NULL,
    PRIMARY KEY (user, hash)
) WITHOUT ROWID;
CREATE INDEX names_by_hash ON names (hash);
CREATE INDEX holders_by_hash ON holders (hash);
"""


@attrs.frozen(kw_only=True)
class Entry:
    """A name with a version, and what it stands for."""

    owner: str
    """Whose upload it is, or `EVERYBODY`."""
    base: str
    """Namespace and name."""
    version: Version
    hash: str
    size: int
    """Bytes."""

    def __str__(self) -> str:
        return f"{self.base}@{self.version}"


@attrs.frozen
class Held:
    """A content that a user has uploaded."""

    hash: str
    size: int


@attrs.frozen
class Uploads:
    """All that a user has uploaded."""

    user: str
    count: int
    size: int


@attrs.frozen(eq=False)
class Tables:
    """One connection; one call at a time. UsageError if the file cannot be used."""

    path: Path
    _db: sqlite3.Connection

    @classmethod
    def open(cls, path: Path) -> Tables:
        """Make the tables if need be. No other process may be opening them."""
        with _told(path):
            db = sqlite3.connect(
                path, timeout=_PATIENCE_SECONDS, isolation_level=None, check_same_thread=False
            )
        tables = cls(path, db)
        try:
            tables._prepare()
        except BaseException:
            db.close()
            raise
        return tables

    def _prepare(self) -> None:
        for setting in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self._run(f"PRAGMA {setting}")
        ((layout,),) = self._run("PRAGMA user_version")
        if layout == 0:
            with self.changing():
                for statement in _TABLES.split(";"):
                    self._run(statement)
                self._run(f"PRAGMA user_version = {LAYOUT}")
        elif layout != LAYOUT:
            raise UsageError(
                f"{self.path} has layout {layout}, and this version of Pie knows {LAYOUT}: "
                "use the version that made it, or another folder"
            )

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """All of what is done inside is kept, or nothing."""
        self._run("BEGIN IMMEDIATE")
        try:
            yield
            self._run("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._run("ROLLBACK")
            raise

    def _run(self, statement: str, *values: object) -> list[Any]:
        with _told(self.path):
            return self._db.execute(statement, values).fetchall()

    def hashes(self) -> set[str]:
        """Of all contents."""
        return {key for (key,) in self._run("SELECT hash FROM programs")}

    def size_of(self, key: str) -> int | None:
        """Bytes of a content; None if there is no such content."""
        return next((size for (size,) in self._run(f"{_SIZE} WHERE hash = ?", key)), None)

    def size_for(self, user: str, key: str) -> int | None:
        """Bytes of a content; None if this user has not uploaded it and it is not installed."""
        mine = "SELECT 1 FROM holders WHERE user = ? AND holders.hash = programs.hash"
        installed = "SELECT 1 FROM names WHERE owner = ? AND names.hash = programs.hash"
        where = f"WHERE hash = ? AND (EXISTS ({mine}) OR EXISTS ({installed}))"
        found = self._run(f"{_SIZE} {where}", key, user, EVERYBODY)
        return next((size for (size,) in found), None)

    def entries(self) -> list[Entry]:
        """All names, by owner, name and version."""
        return _entries(self._run(_ENTRIES))

    def entries_of(self, owner: str) -> list[Entry]:
        """By name and version."""
        return _entries(self._run(f"{_ENTRIES} WHERE owner = ?", owner))

    def entries_for(self, user: str, name: ProgramName) -> list[Entry]:
        """All versions that this user can launch: its own ones, and the installed ones."""
        where = "WHERE owner IN (?, ?) AND namespace = ? AND name = ?"
        rows = self._run(f"{_ENTRIES} {where}", user, EVERYBODY, name.namespace, name.name)
        return _entries(rows)

    def called(self, user: str, key: str) -> list[Entry]:
        """The names of a content that this user can launch it by."""
        where = "WHERE hash = ? AND owner IN (?, ?)"
        return _entries(self._run(f"{_ENTRIES} {where}", key, user, EVERYBODY))

    def entry(self, owner: str, name: ProgramName) -> Entry | None:
        """Exactly this version of this owner's."""
        where = "WHERE owner = ? AND namespace = ? AND name = ? AND version = ?"
        rows = self._run(f"{_ENTRIES} {where}", owner, name.namespace, name.name, str(name.version))
        return next(iter(_entries(rows)), None)

    def held(self, user: str) -> list[Held]:
        """What a user has uploaded, the least recently used first."""
        rows = self._run(
            "SELECT hash, bytes FROM holders JOIN programs USING (hash)"
            " WHERE user = ? ORDER BY used, hash",
            user,
        )
        return [Held(*row) for row in rows]

    def uploads(self) -> list[Uploads]:
        """Of all users, by name."""
        rows = self._run(
            "SELECT user, COUNT(*), SUM(bytes) FROM holders JOIN programs USING (hash)"
            " GROUP BY user ORDER BY user"
        )
        return [Uploads(*row) for row in rows]

    def put(self, key: str, size: int, now: float) -> None:
        """Enter a content, unless it is there."""
        self._run("INSERT OR IGNORE INTO programs VALUES (?, ?, ?)", key, size, now)

    def hold(self, user: str, key: str, now: float) -> None:
        """Enter that a user has uploaded, or used, a content."""
        self._run("INSERT OR REPLACE INTO holders VALUES (?, ?, ?)", user, key, now)

    def touch(self, user: str, key: str, now: float) -> None:
        """Enter that a user has used a content, if it is one of its uploads."""
        self._run("UPDATE holders SET used = ? WHERE user = ? AND hash = ?", now, user, key)

    def call(self, owner: str, name: ProgramName, key: str, now: float) -> None:
        """Let a name with a version stand for a content."""
        self._run(
            "INSERT OR REPLACE INTO names VALUES (?, ?, ?, ?, ?, ?)",
            *(owner, name.namespace, name.name, str(name.version), key, now),
        )

    def uncall(self, owner: str, name: ProgramName) -> None:
        """Take a name with a version away."""
        where = "owner = ? AND namespace = ? AND name = ? AND version = ?"
        values = (owner, name.namespace, name.name, str(name.version))
        self._run(f"DELETE FROM names WHERE {where}", *values)

    def let_go(self, user: str, key: str) -> None:
        """A user holds a content no more, and none of its names stands for it."""
        self._run("DELETE FROM names WHERE owner = ? AND hash = ?", user, key)
        self._run("DELETE FROM holders WHERE user = ? AND hash = ?", user, key)

    def release(self, key: str) -> bool:
        """Delete a content that nobody holds and no name stands for; whether it was one."""
        unused = " AND ".join(
            f"NOT EXISTS (SELECT 1 FROM {table} WHERE hash = ?1)" for table in ("names", "holders")
        )
        self._run(f"DELETE FROM programs WHERE hash = ?1 AND {unused}", key)
        return self.size_of(key) is None

    def forget(self, key: str) -> list[Entry]:
        """Delete a content with all its names, which are returned, and whoever holds it."""
        names = _entries(self._run(f"{_ENTRIES} WHERE hash = ?", key))
        for table in ("names", "holders", "programs"):
            self._run(f"DELETE FROM {table} WHERE hash = ?", key)
        return names


_SIZE = "SELECT bytes FROM programs"
_ENTRIES = (
    "SELECT owner, namespace, name, version, hash, bytes FROM names JOIN programs USING (hash)"
)


def _entries(rows: list[Any]) -> list[Entry]:
    """In order."""
    found = [
        Entry(owner=owner, base=f"{space}/{name}", version=Version(version), hash=key, size=size)
        for owner, space, name, version, key, size in rows
    ]
    return sorted(found, key=lambda entry: (entry.owner, entry.base, entry.version))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Faults of the file are the operator's, those of a statement are ours."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise
    except sqlite3.Error as error:
        raise UsageError(f"cannot keep programs in {path}: {error}") from error
