"""Values of the settings file: from TOML's types to those of our fields, strictly."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NewType, TypeAlias, get_args, get_origin

import attrs
import cattrs

Bytes = NewType("Bytes", int)
Origin = NewType("Origin", str)
Origins: TypeAlias = tuple[Origin, ...]

MOST = 2**63 - 1
"""TOML has no larger whole number."""
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = re.compile(rf"(\d+(?:\.\d+)?) ?({'|'.join(_UNITS)})")
_ORIGIN = re.compile(r"https?://[^/\s?#@]+")
_SHOWN = 60
_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Path: "a path",
    Bytes: f'a whole number of bytes or a text like "64 MiB" (units {", ".join(_UNITS)})',
    Origins: 'a list of texts like "https://example.org", without a path',
}


class ValueRefused(Exception):
    """A value of the wrong kind."""


@attrs.frozen
class Allowed:
    """Which values of a kind are allowed, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


def between(least: int, most: int) -> Allowed:
    """A number, both ends included."""
    return Allowed(f"from {least} to {most}", lambda value: least <= value <= most)


def one_of(*words: str) -> Allowed:
    shown = ", ".join(f'"{word}"' for word in words)
    return Allowed(f"one of {shown}", lambda value: value in words)


ABOVE_ONE = Allowed("above 1, or inf", lambda value: value > 1)
POSITIVE = Allowed("above 0", lambda value: 0 < value <= MOST)
NOT_NEGATIVE = Allowed("0 or above", lambda value: 0 <= value <= MOST)
AT_LEAST_ONE = Allowed("1 or above", lambda value: 1 <= value <= MOST)


def words_of(kind: Any) -> str:
    """What a value of the kind is, for people."""
    return one_of(*_choices(kind)).words if _has_choices(kind) else _WORDS[kind]


def show(value: object) -> str:
    """A value as in TOML, more or less, and never long."""
    text = f'"{value}"' if isinstance(value, str) and value.isprintable() else repr(value)
    if isinstance(value, bool):
        text = text.lower()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _is_literal(kind: Any) -> bool:
    return get_origin(kind) is Literal


def _has_choices(kind: Any) -> bool:
    return _is_literal(kind) or (isinstance(kind, type) and issubclass(kind, StrEnum))


def _choices(kind: Any) -> tuple[str, ...]:
    return get_args(kind) or tuple(map(str, kind))


def _whole(value: object, _: object) -> int:
    # Python's True is an int, and Python knows larger ones than TOML.
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > MOST:
        raise ValueRefused
    return value


def _number(value: object, _: object) -> float:
    number = value if isinstance(value, float) else float(_whole(value, int))
    if math.isnan(number):
        raise ValueRefused
    return number


def _yes_or_no(value: object, _: object) -> bool:
    if not isinstance(value, bool):
        raise ValueRefused
    return value


def _text(value: object, _: object) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueRefused
    return value


def _bytes(value: object, _: object) -> int:
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        exact = Fraction(match[1]) * _UNITS[match[2]]
        if exact.denominator == 1:
            return int(exact)
    return _whole(value, int)


def _origins(value: object, _: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueRefused
    if not all(isinstance(each, str) and _ORIGIN.fullmatch(each) for each in value):
        raise ValueRefused
    return tuple(value)


def _choice(value: object, kind: Any) -> object:
    if value not in _choices(kind):
        raise ValueRefused
    return value if get_args(kind) else kind(value)


converter = cattrs.Converter(detailed_validation=False)
"""From TOML's values to those of our classes. Strict: "8080" is no number. Raises ValueRefused."""
converter.register_structure_hook(int, _whole)
converter.register_structure_hook(float, _number)
converter.register_structure_hook(bool, _yes_or_no)
converter.register_structure_hook(str, _text)
converter.register_structure_hook(StrEnum, _choice)
converter.register_structure_hook(Path, lambda value, _: Path(_text(value, str)))
converter.register_structure_hook(Bytes, _bytes)
converter.register_structure_hook_func(lambda kind: kind == Origins, _origins)
converter.register_structure_hook_func(_is_literal, _choice)
