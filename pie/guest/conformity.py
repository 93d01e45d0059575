"""Whether a Python value is one that a component could pass as a WIT type.

For native guests, whose arguments no component boundary has converted: what a component could
not pass must not reach a host function from them either.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

Check: TypeAlias = Callable[[Any], object]
"""Raises one of MISMATCH for a value that does not conform."""

MISMATCH = (TypeError, ValueError, OverflowError, struct.error)

PRIORITIES = ("low", "normal", "high")
_NUMBERS = {"u32": "I", "pointer": "I", "u64": "Q", "s64": "q", "f32": "f"}


@cache
def check_of(kind: str) -> Check | None:
    """The check of a WIT type, given as text; None for resources, which are checked as handles."""
    inner = kind[kind.find("<") + 1 : -1]
    if kind == "list<u8>":
        return memoryview
    if kind.startswith("list<"):
        return _list_of(inner)
    if kind.startswith("option<"):
        return _option_of(check_of(inner))
    if kind in _NUMBERS:
        return struct.Struct("<" + _NUMBERS[kind]).pack
    if kind == "priority":
        return PRIORITIES.index
    return _check_text if kind == "string" else None


def _list_of(element: str) -> Check:
    if element in _NUMBERS:
        character = _NUMBERS[element]
        return lambda value: array(character, _checked_list(value))
    each = check_of(element)
    assert each is not None, "no function takes a list of resources"
    return lambda value: [each(item) for item in _checked_list(value)]


def _option_of(check: Check | None) -> Check | None:
    return check and (lambda value: value is None or check(value))


def _checked_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _check_text(value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError
    value.encode()
