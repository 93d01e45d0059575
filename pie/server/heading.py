"""What can be read of a message that cannot be decoded: its type, and which request it is."""

from __future__ import annotations

from typing import TypeVar

import attrs
import msgspec

from .frames import U32

T = TypeVar("T")

STEPS = 5000
"""Values looked at in one message. What is looked for is at the front of what clients send, and
a hostile one shall not hold us up."""

_NUMBER = msgspec.msgpack.Decoder[int](U32)
_TEXT = msgspec.msgpack.Decoder(str)


@attrs.frozen
class Heading:
    """The keys that tell requests apart; None for one that is missing or of the wrong kind."""

    type: str | None
    corr_id: int | None
    keys: int
    """How many keys the map says it has; 0 if there is no map."""


def read_heading(data: bytes) -> Heading:
    """Look for the keys whatever else is in the map, up to where it breaks off; never fails."""
    kind: str | None = None
    corr_id: int | None = None
    keys = 0
    try:
        walk = _Walk(data)
        keys = walk.entries()
        for _ in range(keys):
            key, value = _read(_TEXT, walk.value()), walk.value()
            if key == "type" and kind is None:
                kind = _read(_TEXT, value)
            elif key == "corr_id" and corr_id is None:
                corr_id = _read(_NUMBER, value)
            if kind is not None and corr_id is not None:
                break
    except _Unreadable:
        pass  # What came before counts.
    return Heading(kind, corr_id, keys)


def _read(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T | None:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


class _Unreadable(Exception):
    """The bytes end too early, mean nothing, or are too many."""


@attrs.frozen
class _Form:
    """What follows the first byte of a value."""

    width: int = 0
    """Bytes of a count, big-endian."""
    count: int = 0
    """The count, where it is in the first byte."""
    extra: int = 0
    """Bytes after it, beside what is counted."""
    unit: int = 0
    """Bytes of each that is counted."""
    values: int = 0
    """Values of each that is counted."""


def _forms() -> dict[int, _Form]:
    """By first byte; 0xc1 has no meaning."""
    forms = dict.fromkeys([*range(0x80), 0xC0, 0xC2, 0xC3, *range(0xE0, 0x100)], _Form())
    for count in range(16):
        forms[0x80 + count] = _Form(count=count, values=2)
        forms[0x90 + count] = _Form(count=count, values=1)
    for count in range(32):
        forms[0xA0 + count] = _Form(count=count, unit=1)
    for power in range(3):
        forms[0xC4 + power] = _Form(width=1 << power, unit=1)
        forms[0xC7 + power] = _Form(width=1 << power, extra=1, unit=1)
        forms[0xD9 + power] = _Form(width=1 << power, unit=1)
    for power in range(2):
        forms[0xCA + power] = _Form(extra=4 << power)
        forms[0xDC + power] = _Form(width=2 << power, values=1)
        forms[0xDE + power] = _Form(width=2 << power, values=2)
    for power in range(4):
        forms[0xCC + power] = forms[0xD0 + power] = _Form(extra=1 << power)
    for power in range(5):
        forms[0xD4 + power] = _Form(extra=1 + (1 << power))
    return forms


_FORMS = _forms()


@attrs.define
class _Walk:
    """Reads a message value by value, without recursion and without decoding."""

    _data: bytes
    _at: int = 0
    _steps: int = STEPS

    def entries(self) -> int:
        """How many keys the map here says it has."""
        form, count = self._start()
        if form.values != 2:
            raise _Unreadable
        return count

    def value(self) -> bytes:
        """The bytes of the value here, whatever is in it."""
        start, waiting = self._at, 1
        while waiting:
            form, count = self._start()
            waiting += count * form.values - 1
        return self._data[start : self._at]

    def _start(self) -> tuple[_Form, int]:
        """Step over the value here, but not over the values in it."""
        if self._at >= len(self._data) or not self._steps:
            raise _Unreadable
        self._steps -= 1
        form = _FORMS.get(self._data[self._at])
        if form is None:
            raise _Unreadable
        body = self._at + 1 + form.width
        count = int.from_bytes(self._data[self._at + 1 : body], "big") if form.width else form.count
        self._at = body + form.extra + count * form.unit
        return form, count
