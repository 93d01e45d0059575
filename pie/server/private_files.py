"""Files that are for their owner alone: read only if they are, written at once and never half."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from pie.errors import UsageError


@attrs.frozen
class Stamp:
    """What is different once a file was changed, replaced, or given another mode or owner."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        return cls(
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )


def stamp_of(path: Path) -> Stamp | None:
    """None: there is no such file, or nobody lets us look."""
    try:
        return Stamp.of(path.stat())
    except OSError:
        return None


def read_private(path: Path, limit: int) -> tuple[bytes, Stamp]:
    """The content of a file of at most `limit` bytes that nobody else can read or write.

    Raises UsageError if it is another's, has another mode than 0600 or less, or is no file.
    """
    try:
        # A pipe in its place must not make us wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        _check_private(path, status, limit)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(limit), Stamp.of(status)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    finally:
        os.close(descriptor)


def _check_private(path: Path, status: os.stat_result, limit: int) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{path} is not a file")
    if status.st_uid != os.geteuid():
        raise UsageError(
            f"{path} belongs to user id {status.st_uid}, but this process runs as {os.geteuid()}"
        )
    if mode & 0o177:
        raise UsageError(f"{path} has mode {mode:04o} instead of 0600: chmod 600 {path}")
    if status.st_size > limit:
        raise UsageError(f"{path} has {status.st_size} bytes; at most {limit} are read")


def write_private(path: Path, content: bytes) -> None:
    """Replace the file by one of mode 0600: whoever reads sees the old or the new content.

    A link stays, and what it points at is replaced. Raises UsageError, and then nothing changed.
    """
    target = Path(os.path.realpath(path))
    try:
        # mkstemp makes it with mode 0600 whatever the umask.
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise
        _sync_folder(target.parent)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time that changes `path`: others wait. The lock is a file beside it."""
    lock = Path(f"{os.path.realpath(path)}.lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"cannot write {lock}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
