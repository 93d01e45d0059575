"""Component values to Python: what a guest passes to a host function."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import wasmtime.component as wit

from . import _capi
from ._capi import CELL, FIELD, MEM, read_pair, read_triple, read_word
from .host import Err, Ok
from .resources import Handles
from .values import Reader, cases, padded, primitive

_read_char = struct.Struct("<8xI").unpack_from


def read_text(size: int, at: int) -> str:
    return str(MEM[at : at + size], "utf-8")


def reader(kind: Any) -> Reader:
    """The reader of a WIT type; TypeError for one that cannot cross (streams, futures)."""
    if (character := primitive(kind)) is not None:
        unpack = struct.Struct("<" + padded(character)).unpack_from
        return lambda cell, handles: unpack(MEM, cell)[0]
    make = _READERS.get(type(kind))
    if make is None:
        raise TypeError(f"values of type {type(kind).__name__} are not supported")
    return make(kind)


def _char_reader(_: Any) -> Reader:
    return lambda cell, handles: chr(_read_char(MEM, cell)[0])


def _text_reader(_: Any) -> Reader:
    def read(cell: int, handles: Handles) -> str:
        size, at = read_pair(MEM, cell + 8)
        return str(MEM[at : at + size], "utf-8")

    return read


def _list_reader(kind: Any) -> Reader:
    if (character := primitive(kind.element)) is not None:
        return _bytes_reader if character == "B" else _numbers_reader(character)
    element = reader(kind.element)

    def read(cell: int, handles: Handles) -> list[Any]:
        size, at = read_pair(MEM, cell + 8)
        return [element(at + offset, handles) for offset in range(0, size * CELL, CELL)]

    return read


def _bytes_reader(cell: int, handles: Handles) -> bytes:
    size, at = read_pair(MEM, cell + 8)
    return bytes(MEM[at + 8 : at + size * CELL : CELL]) if size else b""


def _numbers_reader(character: str) -> Reader:
    read_list = _list_of_numbers(character)
    return lambda cell, handles: read_list(*read_pair(MEM, cell + 8))


def _list_of_numbers(character: str) -> Callable[[int, int], list[Any]]:
    width = struct.calcsize(character)
    first, step = 8 // width, CELL // width
    unpack = struct.Struct(f"<8x{character}").unpack_from

    def read(size: int, at: int) -> list[Any]:
        if size == 1:
            return [*unpack(MEM, at)]
        if not size:
            return []
        numbers: list[Any] = MEM[at : at + size * CELL].cast(character)[first::step].tolist()  # type: ignore[call-overload]
        return numbers

    return read


read_u32_list = _list_of_numbers("I")
"""The numbers of a `list<u32>` of so many cells at an address."""


def _tuple_reader(kind: Any) -> Reader:
    elements = [(index * CELL, reader(each)) for index, each in enumerate(kind.elements)]

    def read(cell: int, handles: Handles) -> tuple[Any, ...]:
        at = read_word(MEM, cell + 16)[0]
        return tuple([read(at + offset, handles) for offset, read in elements])

    return read


def _record_reader(kind: Any) -> Reader:
    fields = [(i * FIELD + 16, name, reader(each)) for i, (name, each) in enumerate(kind.fields)]

    def read(cell: int, handles: Handles) -> dict[str, Any]:
        at = read_word(MEM, cell + 16)[0]
        return {name: read(at + offset, handles) for offset, name, read in fields}

    return read


def _option_reader(kind: Any) -> Reader:
    payload = reader(kind.payload)

    def read(cell: int, handles: Handles) -> Any:
        at = read_word(MEM, cell + 8)[0]
        return payload(at, handles) if at else None

    return read


def _result_reader(kind: Any) -> Reader:
    good = kind.ok and reader(kind.ok)
    bad = kind.err and reader(kind.err)

    def read(cell: int, handles: Handles) -> Ok[Any] | Err[Any]:
        flag, at = read_pair(MEM, cell + 8)
        if flag & 1:
            return Ok(good(at, handles) if good else None)
        return Err(bad(at, handles) if bad else None)

    return read


def _variant_reader(kind: Any) -> Reader:
    readers = {name: each and reader(each) for name, each in cases(kind)}

    def read(cell: int, handles: Handles) -> tuple[str, Any]:
        size, at, payload = read_triple(MEM, cell + 8)
        name = read_text(size, at)
        case = readers[name]
        return name, case(payload, handles) if case else None

    return read


def _flags_reader(_: Any) -> Reader:
    def read(cell: int, handles: Handles) -> set[str]:
        size, at = read_pair(MEM, cell + 8)
        return {read_text(*read_pair(MEM, at + 16 * index)) for index in range(size)}

    return read


def _own_reader(_: Any) -> Reader:
    def read(cell: int, handles: Handles) -> Any:
        return handles.give(_capi.take_rep(handles.context, read_word(MEM, cell + 8)[0]))

    return read


def _borrow_reader(_: Any) -> Reader:
    def read(cell: int, handles: Handles) -> Any:
        return handles.table[_capi.take_rep(handles.context, read_word(MEM, cell + 8)[0])]

    return read


_READERS: dict[Any, Callable[[Any], Reader]] = {
    wit.Char: _char_reader,
    wit.String: _text_reader,
    wit.EnumType: _text_reader,
    wit.ListType: _list_reader,
    wit.TupleType: _tuple_reader,
    wit.RecordType: _record_reader,
    wit.OptionType: _option_reader,
    wit.ResultType: _result_reader,
    wit.VariantType: _variant_reader,
    wit.FlagsType: _flags_reader,
    wit.OwnType: _own_reader,
    wit.BorrowType: _borrow_reader,
}
