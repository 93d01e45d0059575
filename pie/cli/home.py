"""Where Pie keeps what it can fetch or make again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import attrs

from pie.errors import UsageError

DEFAULT_MODEL = "smollm2-135m-instruct"
"""The model of `pie run`, fetched when it is first needed."""
CACHE_BYTES = 2 << 30
"""What each part of the cache may hold: about a hundred built inferlets."""


@attrs.frozen
class Home:
    """A folder: `models/` and, in `cache/`, built inferlets and compiled code."""

    path: Path

    @property
    def built(self) -> Path:
        """Components made of inferlet folders."""
        return self.path / "cache" / "built"

    @property
    def compiled(self) -> Path:
        """Machine code of components; executed, so nobody else may write there."""
        return self.path / "cache" / "compiled"

    def prune(self, limit: int = CACHE_BYTES) -> None:
        """Delete the oldest files of a part of the cache that holds more than `limit` bytes."""
        for part in (self.built, self.compiled):
            files = sorted(_files(part), reverse=True)
            total = 0
            for _, size, path in files:
                total += size
                if total > limit:
                    path.unlink(missing_ok=True)


def open_home() -> Home:
    """$PIE_HOME, else $XDG_CACHE_HOME/pie, else ~/.cache/pie; UsageError if it is no use."""
    path = _home_path()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make PIE_HOME {path}: {error.strerror}") from None
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise UsageError(f"cannot write in PIE_HOME {path}")
    return Home(path)


def _home_path() -> Path:
    if chosen := os.environ.get("PIE_HOME"):
        return Path(chosen).absolute()
    # The XDG specification says that a relative path there is to be ignored.
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if os.path.isabs(cache) else Path.home() / ".cache") / "pie"


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Time of the last change, bytes and path of each file; other processes may delete some."""
    for path in folder.glob("*"):
        with suppress(FileNotFoundError):
            status = path.stat()
            yield status.st_mtime, status.st_size, path
