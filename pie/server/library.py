"""The programs of a server on disk: installed for everybody, and uploaded by users.

A file per content and one SQLite file that says what the files are (docs/decisions/0014).
Several processes may use one folder at once. Every method blocks, for as long as another process
writes: call them away from the loop, from any number of threads.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from pie.errors import UsageError

from .blobs import Blobs, check_hash, hash_of
from .library_choice import choose, few, preference
from .library_room import make_room
from .library_tables import EVERYBODY, Entry, Tables, Uploads
from .private_files import locked
from .program_names import ProgramName

log = logging.getLogger(__name__)

_MOST_USES = 1000
"""Until they are written."""


@attrs.define(eq=False)
class ProgramLibrary:
    """A folder of programs. Raises UsageError wherever the folder cannot be used."""

    _path: Path
    _blobs: Blobs
    _reading: Tables
    _writing: Tables
    """Has a connection of its own, so that nobody waits for a file that is being written."""
    _now: Callable[[], float]
    """Seconds of a clock that goes on between processes."""
    _reader: threading.Lock = attrs.field(factory=threading.Lock)
    _uses: dict[tuple[str, str], float] = attrs.field(factory=dict)
    """When users last used contents, as far as the tables do not know."""

    @classmethod
    def open(cls, folder: Path, now: Callable[[], float] = time.time) -> ProgramLibrary:
        """Make the folder if need be, and delete what killed processes have left."""
        blobs = Blobs.open(folder / "blobs")
        path = folder / "programs.sqlite"
        with locked(path):
            writing = Tables.open(path)
            try:
                blobs.sweep(writing.hashes())
                return cls(path, blobs, Tables.open(path), writing, now)
            except BaseException:
                writing.close()
                raise

    def close(self) -> None:
        """Enter what was used, and close the file."""
        try:
            with self._changing():
                pass
        finally:
            self._reading.close()
            self._writing.close()

    # What users may launch

    def has(self, user: str, key: str) -> bool:
        """Whether this user has uploaded a content, or it is installed."""
        with self._reader:
            size = self._reading.size_for(user, key)
        return size is not None and self._blobs.has(key, size)

    def has_named(self, user: str, name: ProgramName) -> bool:
        """Whether `resolve` would find it."""
        entry = choose(name, self._entries_for(user, name))
        if entry is None or name.hash not in (None, entry.hash):
            return False
        return self._blobs.has(entry.hash, entry.size)

    def locate(self, user: str, key: str) -> Entry | None:
        """The name of a content, if it has one; it counts as used now.

        UsageError unless `has` would find it.
        """
        if not self.has(user, key):
            raise UsageError(f"no program {key}: upload it first")
        self._note_use(user, key)
        with self._reader:
            return max(self._reading.called(user, key), key=preference, default=None)

    def resolve(self, user: str, name: ProgramName) -> Entry:
        """What a name stands for, of equal versions the user's own; it counts as used now.

        UsageError that says what there is, if there is no such thing, or if it has another hash.
        """
        entries = self._entries_for(user, name)
        entry = choose(name, entries)
        if entry is None:
            raise UsageError(self._missing(user, name, entries))
        if name.hash not in (None, entry.hash):
            raise UsageError(f"inferlet {entry} has the hash {entry.hash}, not {name.hash}")
        self._note_use(user, entry.hash)
        return entry

    def read(self, key: str) -> bytes:
        """A content. One whose file is not what it was is forgotten: UsageError."""
        data = self._blobs.read(key)
        if data is None:
            self._forget_damaged(key)
            raise UsageError(
                f"program {key} is gone, or its file was damaged: upload or install it again"
            )
        return data

    def _note_use(self, user: str, key: str) -> None:
        """Others of this user's uploads make room before this one."""
        with self._reader:
            self._uses[user, key] = self._now()
            many = len(self._uses) > _MOST_USES
        if many:
            with self._changing():
                pass

    def _entries_for(self, user: str, name: ProgramName) -> list[Entry]:
        with self._reader:
            return self._reading.entries_for(user, name)

    def _missing(self, user: str, name: ProgramName, entries: Sequence[Entry]) -> str:
        if entries:
            versions = dict.fromkeys(str(entry.version) for entry in entries)
            return f"no version {name.version} of inferlet {name.base}; there is {few(versions)}"
        with self._reader:
            known = [*self._reading.entries_of(user), *self._reading.entries_of(EVERYBODY)]
        there = f"there is {few(map(str, known))}" if known else "none has a name here"
        return f"no inferlet {name.base}; {there}; `pie install` adds one for everybody"

    # What changes

    def add_upload(
        self, user: str, wasm: bytes, key: str, name: ProgramName | None, *, limit: int
    ) -> None:
        """Keep a user's upload, and let `name` stand for it, for this user.

        Beyond `limit` bytes of this user's uploads older ones make room, see `make_room`.
        UsageError if they cannot, or if `wasm` does not have the hash `key`.
        """
        check_hash(wasm, key)
        with self._changing() as change:
            now = self._now()
            change.tables.put(key, len(wasm), now)
            change.tables.hold(user, key, now)
            if name is not None:
                change.tables.call(user, name, key, now)
            change.make_room(user, key, limit)
            self._blobs.write(key, wasm)

    def install(self, wasm: bytes, name: ProgramName, *, replace: bool) -> Entry:
        """Keep a program for everybody.

        UsageError if the name has other content, unless that is to be replaced.
        """
        key = hash_of(wasm)
        with self._changing() as change:
            now = self._now()
            old = change.tables.entry(EVERYBODY, name)
            if old is not None and old.hash != key and not replace:
                raise UsageError(
                    f"{old} is installed with other content, {old.hash}: "
                    "use another version, or replace it with --replace"
                )
            change.tables.put(key, len(wasm), now)
            change.tables.call(EVERYBODY, name, key, now)
            if old is not None:
                change.release(old.hash)
            self._blobs.write(key, wasm)
            entry = change.tables.entry(EVERYBODY, name)
        assert entry is not None
        return entry

    def uninstall(self, name: ProgramName, owner: str = EVERYBODY) -> Entry:
        """Take a name away, and its content if nobody else has it; UsageError if it is not there.

        A user who has uploaded that content may still launch it by its hash.
        """
        with self._changing() as change:
            entry = change.tables.entry(owner, name)
            if entry is None or name.hash not in (None, entry.hash):
                known = [e for e in change.tables.entries_of(owner) if e.base == name.base]
                there = f"there is {few(map(str, known))}" if known else "nor any other version"
                whose = "installed" if owner == EVERYBODY else f"an upload of user {owner!r}"
                raise UsageError(f"{name} is not {whose}; {there}")
            change.tables.uncall(owner, name)
            change.release(entry.hash)
        return entry

    def entries(self) -> list[Entry]:
        """All names of all owners, in order."""
        with self._reader:
            return self._reading.entries()

    def uploads(self) -> list[Uploads]:
        """What each user has uploaded, with and without a name."""
        with self._reader:
            return self._reading.uploads()

    def _forget_damaged(self, key: str) -> None:
        with self._changing() as change:
            if self._blobs.read(key) is not None or change.tables.size_of(key) is None:
                return  # somebody else has seen it
            names = change.tables.forget(key)
            change.gone.append(key)
        called = f", called {', '.join(map(str, names))}" if names else ""
        log.warning("program %s%s: its file in %s was damaged", key, called, self._blobs.folder)

    @contextmanager
    def _changing(self) -> Iterator[_Change]:
        """Change the tables and the files: nobody else does, and readers see all or nothing."""
        with locked(self._path):
            change = _Change(self._writing)
            with self._writing.changing():
                self._write_uses()
                yield change
            for key in change.gone:
                self._blobs.delete(key)

    def _write_uses(self) -> None:
        """If that comes to nothing, older uploads are taken for the least used: no great harm."""
        with self._reader:
            uses, self._uses = self._uses, {}
        for (user, key), at in uses.items():
            self._writing.touch(user, key, at)


@attrs.define(eq=False)
class _Change:
    """A change of the tables, and the files that go when it is kept."""

    tables: Tables
    gone: list[str] = attrs.field(factory=list)

    def release(self, key: str) -> None:
        """Let a content go unless somebody has it."""
        if self.tables.release(key):
            self.gone.append(key)

    def make_room(self, user: str, new: str, limit: int) -> None:
        held, entries = self.tables.held(user), self.tables.entries_of(user)
        for key in make_room(held, entries, new, limit):
            self.tables.let_go(user, key)
            self.release(key)
