"""Machine code, kept on disk so that a program is compiled once per machine and configuration.

What is loaded from here is executed: the folder must belong to this user alone, a file's name
carries the hash of its content, and one that does not match is never mapped.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import stat
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import wasmtime.component as wit
from wasmtime import WasmtimeError

from pie.errors import ProgramError, UsageError
from pie.pruning import prune

_log = logging.getLogger(__name__)

MOST_BYTES = 4 << 30
"""About a hundred inferlets in Python."""


def compile_component(engine: Any, wasm: bytes) -> Any:
    """Machine code for `wasm`; ProgramError if it is not valid."""
    try:
        return wit.Component(engine, wasm)
    except WasmtimeError as error:
        reason = str(error).strip().splitlines()
        raise ProgramError(f"not a valid component: {reason[-1].strip()}") from None


class Cache:
    """A folder of compiled components for one engine configuration."""

    def __init__(
        self, folder: Path, engine: Any, configuration: str, limit: int = MOST_BYTES
    ) -> None:
        """Create `folder` if needed; UsageError if others could write or read in it.

        What was not used for longest is deleted when the files come to more than `limit` bytes.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or not _is_private(status):
            raise UsageError(
                f"the compile cache {folder} must be a folder of user {os.geteuid()} with mode "
                f"0700; it belongs to {status.st_uid} and has mode "
                f"{stat.S_IMODE(status.st_mode):04o}"
            )
        self.folder, self._engine, self._limit = folder, engine, limit
        facts = (version("wasmtime"), configuration, platform.machine(), cpu_features())
        self._salt = "\n".join(facts).encode()

    def has(self, wasm: bytes) -> bool:
        """Whether the component of `wasm` is here, unless its file turns out to be damaged."""
        return any(self._files(self._key(wasm)))

    def component(self, wasm: bytes) -> Any:
        """The component of `wasm`, compiled now if it is not here."""
        key = self._key(wasm)
        found = self._load(key)
        if found is None:
            found = compile_component(self._engine, wasm)
            self._store(key, bytes(found.serialize()))
        return found

    def _key(self, wasm: bytes) -> str:
        return hashlib.sha256(self._salt + b"\0" + wasm).hexdigest()

    def _files(self, key: str) -> Iterator[Path]:
        return self.folder.glob(f"{key}.*.cwasm")

    def _load(self, key: str) -> Any:
        for path in sorted(self._files(key)):
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode) or not _is_private(status):
                _log.warning("not using %s: it must be a file of ours with mode 0600", path)
            elif _digest_of(path) != path.name.split(".")[1]:
                _log.warning("not using %s: its content is damaged", path)
            else:
                os.utime(path)  # the least recently used is deleted first
                return wit.Component.deserialize_file(self._engine, str(path))
            path.unlink()
        return None

    def _store(self, key: str, code: bytes) -> None:
        with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
            file.write(code)
        os.replace(file.name, self.folder / f"{key}.{_digest(code)}.cwasm")
        prune(self.folder, self._limit)


def _digest(code: bytes) -> str:
    return hashlib.sha256(code).hexdigest()


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_private(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & 0o077


def cpu_features() -> str:
    """What this machine's processor can do, as Linux tells it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("flags", "Features")):
            return " ".join(sorted(line.partition(":")[2].split()))
    return platform.processor()


def configuration(fuel: bool) -> str:
    """What machine code for one kind of engine is told apart by."""
    return "fuel" if fuel else "epochs"
