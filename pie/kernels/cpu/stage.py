"""Functions that numba compiles once and calls by name.

numba puts a copy of what it has compiled into every function that calls it, and optimises that
again: six levels of calls make six copies of the largest kernel. A *stage* is compiled by itself,
kept in the cache, and linked by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import llvmlite.binding as llvm
import numba
from numba.core import types
from numba.extending import models, register_model

from .jit import caching

F = TypeVar("F", bound=Callable[..., Any])

_TYPES = {"int": types.int64, "float": types.float64, "None": types.void}


class Stage(types.ExternalFunction):
    """A compiled function that Python and compiled code can call."""

    def __init__(self, symbol: str, signature: Any, compiled: Any) -> None:
        super().__init__(symbol, signature)
        self._compiled = compiled  # its machine code lives as long as it does

    def __call__(self, *arguments: float) -> Any:  # type: ignore[override]  # not a signature
        """Run it without the interpreter lock."""
        if len(arguments) != len(self.sig.args):  # which ctypes would let pass
            raise TypeError(f"{self.symbol} takes {len(self.sig.args)} arguments")
        return self._compiled.ctypes(*arguments)


register_model(Stage)(models.OpaqueModel)


def staged(function: F) -> F:
    """Compile `function` now, or take it from the cache.

    Annotations are its signature: int is int64 (addresses, counts), float is float64. What else
    `compiled` says holds.
    """
    parameters = inspect.signature(function)
    kinds = [_TYPES[parameter.annotation] for parameter in parameters.parameters.values()]
    signature = _TYPES[parameters.return_annotation](*kinds)
    with caching():
        options = {"nopython": True, "boundscheck": False, "error_model": "numpy"}
        made = numba.cfunc(signature, cache=True, **options)(function)
    symbol = f"pie_stage_{function.__module__.rpartition('.')[2]}_{function.__name__}"
    llvm.add_symbol(symbol, made.address)
    return cast(F, Stage(symbol, signature, made))
