"""What readers and writers of component values share: shapes, kinds, resource types.

What a value looks like in Python is told in `pie.guest.host`; records are dicts by WIT field
name. A reader is `read(cell, handles)`; a writer is `write(cell, value, handles)`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import wasmtime.component as wit

from ._capi import CELL
from .resources import Handles

Reader: TypeAlias = Callable[[int, Handles], Any]
Writer: TypeAlias = Callable[[int, Any, Handles], None]
Slices: TypeAlias = Callable[[int, Any, Handles], Iterator[None]]

# WIT type: (kind of its cell, format character of `struct`, `array` and `memoryview` alike)
PRIMITIVES: dict[Any, tuple[int, str]] = {
    wit.Bool: (0, "?"),
    wit.S8: (1, "b"),
    wit.U8: (2, "B"),
    wit.S16: (3, "h"),
    wit.U16: (4, "H"),
    wit.S32: (5, "i"),
    wit.U32: (6, "I"),
    wit.S64: (7, "q"),
    wit.U64: (8, "Q"),
    wit.F32: (9, "f"),
    wit.F64: (10, "d"),
}


def primitive(kind: Any) -> str | None:
    """The `struct` character of a WIT number or bool, or None."""
    entry = PRIMITIVES.get(type(kind))
    return entry and entry[1]


def padded(character: str) -> str:
    """The `struct` format of a whole cell of that primitive, without its kind."""
    return f"8x{character}{CELL - 8 - struct.calcsize(character)}x"


def cases(kind: Any) -> list[tuple[str, Any]]:
    """The (name, payload type or None) of a variant's cases."""
    return [
        (case[0], case[1]) if isinstance(case, tuple) else (case.name, case.type)
        for case in kind.cases
    ]


class Resources:
    """The resource types of the component being linked, each with our number for it."""

    def __init__(self) -> None:
        self._kinds: list[Any] = []

    def find(self, kind: Any) -> int | None:
        """Our number of a resource type, from 1; None for a type not seen yet.

        A type that one interface uses from another compares equal to it, so it is one type.
        """
        return next((i for i, known in enumerate(self._kinds, 1) if known == kind), None)

    def add(self, kind: Any) -> int:
        self._kinds.append(kind)
        return len(self._kinds)
