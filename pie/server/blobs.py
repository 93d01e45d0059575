"""Programs as files named by their content: one is whole, or it is not there."""

from __future__ import annotations

import logging
import os
from collections.abc import Set
from pathlib import Path

import attrs
from blake3 import blake3

from pie.errors import UsageError

from .private_files import write_private

log = logging.getLogger(__name__)

_SUFFIX = ".wasm"


def hash_of(data: bytes) -> str:
    """The name of a content: about 1 ms for 2 MiB, so that a large one goes to a thread."""
    return blake3(data).hexdigest()


def check_hash(data: bytes, expected: str) -> None:
    """UsageError if `data` does not have this hash."""
    if (found := hash_of(data)) != expected:
        raise UsageError(f"Hash mismatch: expected {expected}, got {found}")


@attrs.frozen
class Blobs:
    """A folder of them. Whoever writes or deletes keeps out all others who do."""

    folder: Path

    @classmethod
    def open(cls, folder: Path) -> Blobs:
        """Make the folder if need be; UsageError if that cannot be done."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot(folder, error) from None
        return cls(folder)

    def has(self, key: str, size: int) -> bool:
        """Whether there is a file of this size; what is in it shows when it is read."""
        try:
            return self._path(key).stat().st_size == size
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _cannot(self.folder, error) from None

    def read(self, key: str) -> bytes | None:
        """None if it is not there, or not what its name says. UsageError if nobody can tell."""
        try:
            data = self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _cannot(self.folder, error) from None
        return data if hash_of(data) == key else None

    def write(self, key: str, data: bytes) -> None:
        """Keep `data`; when this returns it survives a crash. UsageError if it cannot be kept."""
        if self.read(key) is None:
            write_private(self._path(key), data)

    def delete(self, key: str) -> None:
        """What cannot be deleted now is swept at the next start."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            log.warning("cannot delete %s: %s", self._path(key), error.strerror)

    def sweep(self, known: Set[str]) -> None:
        """Delete everything else: what was left when a process was killed."""
        try:
            for entry in os.scandir(self.folder):
                key, suffix = os.path.splitext(entry.name)
                if suffix != _SUFFIX or key not in known:
                    os.unlink(entry.path)
        except OSError as error:
            raise _cannot(self.folder, error) from None

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"


def _cannot(folder: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot keep programs in {folder}: {error.strerror}")
