"""Keeping a folder of files that can be made again within a size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def prune(folder: Path, limit: int) -> None:
    """Delete the files that were changed longest ago, until the rest has at most `limit` bytes."""
    total = 0
    for _, size, path in sorted(_files(folder), reverse=True):
        total += size
        if total > limit:
            path.unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Time of the last change, bytes and path of each file; other processes may delete some."""
    for path in folder.glob("*"):
        with suppress(FileNotFoundError):
            status = path.stat()
            yield status.st_mtime, status.st_size, path
