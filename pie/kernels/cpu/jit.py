"""Compiling with numba, and keeping what it compiles in `code_folder`.

numba looks at the one file a function is in, so an edit elsewhere would leave old kernels; and
its index of a function's signatures is a file that two processes can write over each other, after
which the code of one signature is taken for that of another. Here each has a file of its own.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numba
from numba.core import caching as numba_caching
from numba.core.serialize import dumps

from .code_folder import code_folder, keep, kept

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """`function` compiled when it is first called, without the interpreter lock while it runs.

    Floats are not reordered, division by zero gives infinity, and nothing is checked.
    """
    with caching():
        decorate = numba.njit(nogil=True, cache=True, boundscheck=False, error_model="numpy")
        return cast(F, decorate(function))


@contextmanager
def caching() -> Iterator[None]:
    """What is made a compiled function within this context is kept in `code_folder`."""
    before = numba.config.CACHE_DIR, numba_caching.IndexDataCacheFile
    numba.config.CACHE_DIR, numba_caching.IndexDataCacheFile = str(code_folder()), _Files
    try:
        yield
    finally:
        numba.config.CACHE_DIR, numba_caching.IndexDataCacheFile = before


class _Files:
    """What numba asks of its `IndexDataCacheFile`, which is one for each function."""

    def __init__(self, cache_path: str, filename_base: str, source_stamp: object) -> None:
        # numba's path names the folder of the source.
        self._facts = [cache_path, filename_base, repr(source_stamp)]
        self._name = filename_base[:100]

    def load(self, key: object) -> Any:
        """What was saved for a signature, or None."""
        pickled = kept(code_folder() / self._file(key))
        return None if pickled is None else pickle.loads(pickled)

    def save(self, key: object, data: object) -> None:
        keep(code_folder() / self._file(key), dumps(data))

    def flush(self) -> None:
        """Nothing here can be out of date."""

    def _file(self, key: object) -> str:
        digest = hashlib.sha256("\n".join([*self._facts, repr(key)]).encode())
        return f"{self._name}.{digest.hexdigest()[:32]}"
