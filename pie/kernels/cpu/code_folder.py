"""A folder for machine code that cannot be stale, damaged or somebody else's.

Its name is a hash of all sources of this package, the compilers' versions, the processor and the
target: another of any of these is another folder. Files in it are written whole and never
changed, each with a checksum, so processes share the folder without waiting for each other.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

import llvmlite.binding as llvm

from pie.errors import UsageError
from pie.folders import cache_folder

from .target import detect, host_features

logger = logging.getLogger(__name__)

_KEPT = 4
"""Folders that are kept, those used last; a process says so when it starts."""
_IN_USE = 3600.0
"""Seconds for which a folder is kept in any case: its process may still be compiling."""

_CHECKSUM = 32
"""Bytes of it."""


def machine_code() -> Path:
    """Where machine code is kept."""
    return cache_folder() / "cache" / "kernels"


@cache
def code_folder() -> Path:
    """The folder in `machine_code` of this process; UsageError if others could write there."""
    base = machine_code()
    folder = base / code_key()
    try:
        base.parent.mkdir(parents=True, exist_ok=True)
        for path in (base, folder):
            path.mkdir(mode=0o700, exist_ok=True)
            _refuse_of_others(path)
        os.utime(folder)
    except OSError as error:
        raise UsageError(
            f"no machine code can be kept in {folder}, which PIE_HOME decides: {error.strerror}"
        ) from None
    _prune(base)
    return folder


def code_key() -> str:
    """What the machine code of this process depends on, as a name."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    target = detect()
    features = sorted(name for name, has in host_features().items() if has)
    versions = [version("llvmlite"), platform.python_version()]
    facts = [*versions, llvm.get_host_cpu_name(), *features, target.name if target else ""]
    digest.update("\n".join(facts).encode())
    return digest.hexdigest()[:32]


def keep(path: Path, data: bytes) -> None:
    """Put `data` into a new file of the code folder; if that cannot be, a warning says so."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                file.write(hashlib.sha256(data).digest() + data)
                file.close()
                os.replace(file.name, path)
            except OSError:
                with suppress(OSError):
                    os.unlink(file.name)
                raise
    except OSError as error:
        logger.warning("machine code is not kept and will be made again: %s", error)


def kept(path: Path) -> bytes | None:
    """What `keep` put there; None if there is nothing, or it is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    data = content[_CHECKSUM:]
    return data if hashlib.sha256(data).digest() == content[:_CHECKSUM] else None


def _refuse_of_others(path: Path) -> None:
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise UsageError(f"{path} must be a folder of user {os.geteuid()}: its code is run")
    if status.st_mode & 0o022:
        raise UsageError(
            f"{path} can be written to by others, and its code is run: delete it, "
            "and it will be made anew"
        )


def _prune(base: Path) -> None:
    """Delete the folders used longest ago; other processes may do the same."""
    used = []
    for path in base.iterdir():
        with suppress(FileNotFoundError):
            used.append((path.lstat().st_mtime, path))
    for when, path in sorted(used, reverse=True)[_KEPT:]:
        if when < time.time() - _IN_USE:
            shutil.rmtree(path, ignore_errors=True)
