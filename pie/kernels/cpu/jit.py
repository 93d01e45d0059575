"""Functions that are compiled when they are needed, and kept in `code_folder`.

What they say is what `compiler` understands. Functions of this package are kept in the folder,
whose name tells their sources; others are compiled anew in each process.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import Any, TypeVar, cast

import llvmlite.binding as llvm
from llvmlite import ir

from .library import loaded
from .target import require

F = TypeVar("F", bound=Callable[..., Any])

_C_TYPES: dict[str, Any] = {"int": ctypes.c_int64, "float": ctypes.c_double, "None": None}


class Compiled:
    """A compiled function, for Python and for compiled functions alike.

    For Python it needs annotations: int (int64: addresses, counts), float (float64) or None. It
    runs without the interpreter lock.
    """

    def __init__(self, python: Callable[..., Any], *, apart: bool) -> None:
        """`apart`: it is never made part of those that call it."""
        update_wrapper(self, python)
        self.python = python
        self.symbol = f"pie_{python.__module__.rpartition('.')[2]}_{python.__name__}"
        self._apart = apart
        self._entry: Any = None

    def called(self, unit: Any, e: Any, values: Sequence[Any]) -> Any:
        """Call it from a compiled function."""
        return unit.call(e, self.python, values, apart=self._apart)

    def __call__(self, *arguments: float) -> Any:
        if self._entry is None:
            together(self.symbol, self)
        if len(arguments) != len(self._entry.argtypes):  # which ctypes would let pass
            raise TypeError(f"{self.symbol} takes {len(self._entry.argtypes)} arguments")
        return self._entry(*arguments)

    def enter(self, address: int) -> None:
        """It has been compiled."""
        hints = inspect.signature(self.python)
        kinds = [_C_TYPES[each.annotation] for each in hints.parameters.values()]
        self._entry = ctypes.CFUNCTYPE(_C_TYPES[hints.return_annotation], *kinds)(address)


def compiled(function: F) -> F:
    """Compile `function` with those that call it."""
    return cast(F, Compiled(function, apart=False))


def staged(function: F) -> F:
    """As `compiled`, but once: code of some size, called now and then."""
    return cast(F, Compiled(function, apart=True))


def together(name: str, *functions: Any) -> None:
    """Compile some functions into one object, or take it from the cache."""
    package = __name__.rpartition(".")[0]
    ours = all(function.python.__module__.startswith(f"{package}.") for function in functions)

    def module() -> Any:
        from .compiler import Unit  # which nobody needs whose code is kept

        made = ir.Module("pie")
        made.triple = llvm.get_default_triple()
        unit = Unit(made, require())
        for function in functions:
            unit.export(function.python, function.symbol)
        return made

    addresses = loaded(name, [function.symbol for function in functions], module, keeps=ours)
    for function, address in zip(functions, addresses, strict=True):
        function.enter(address)
