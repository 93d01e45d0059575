"""Compiling with numba, and a cache of machine code that cannot be stale.

numba looks at the date of the one file a function is in, so an edit elsewhere would leave old
kernels. Here the folder's name is a hash of all sources of this package, the compilers'
versions, the processor and the target: another of any of these is another folder.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import stat
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite.binding as llvm
import numba

from pie.errors import UsageError

from .target import detect, host_features

F = TypeVar("F", bound=Callable[..., Any])

_KEPT = 4
"""Folders of machine code that are kept, the newest."""


def compiled(function: F) -> F:
    """`function` compiled when it is first called, without the interpreter lock while it runs.

    Floats are not reordered, division by zero gives infinity, and nothing is checked.
    """
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(code_folder())
    try:
        decorate = numba.njit(nogil=True, cache=True, boundscheck=False, error_model="numpy")
        return cast(F, decorate(function))
    finally:
        numba.config.CACHE_DIR = before


@cache
def code_folder() -> Path:
    """Where this process keeps machine code; UsageError if others could write there.

    $PIE_HOME/cache/kernels, else pie/cache/kernels in the user's folder for caches.
    """
    base = _base() / "kernels"
    folder = base / _key()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in (base, folder):
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise UsageError(f"{path} must be a folder of user {os.geteuid()}: its code is run")
        path.chmod(0o700)
    os.utime(folder)
    _prune(base)
    return folder


def _base() -> Path:
    if chosen := os.environ.get("PIE_HOME"):
        return Path(chosen).absolute() / "cache"
    folder = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(folder) if os.path.isabs(folder) else Path.home() / ".cache") / "pie" / "cache"


def _key() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    target = detect()
    features = sorted(name for name, has in host_features().items() if has)
    versions = [version("numba"), version("llvmlite"), platform.python_version()]
    facts = [*versions, llvm.get_host_cpu_name(), *features, target.name if target else ""]
    digest.update("\n".join(facts).encode())
    return digest.hexdigest()[:32]


def _prune(base: Path) -> None:
    folders = sorted(base.iterdir(), key=lambda path: path.lstat().st_mtime, reverse=True)
    for old in folders[_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
