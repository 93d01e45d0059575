"""Python values to component values: what a host function gives to a guest.

Only the host writes, so a value of the wrong shape is our own bug and raises whatever Python
raises. A cell gets its kind when its content is valid for deletion, never before.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from typing import Any

import wasmtime.component as wit

from . import _capi
from ._capi import CELL, FIELD, MEM, U64, Cells, read_word
from .host import Err, Ok
from .resources import Handles
from .values import PRIMITIVES, Resources, Writer, cases, padded

_CHAR, _STRING, _LIST, _RECORD, _TUPLE, _VARIANT, _ENUM = 11, 12, 13, 14, 15, 16, 17
OPTION, _RESULT, _FLAGS, RESOURCE = 18, 19, 20, 21

write_pointer = struct.Struct("<B7xQ16x").pack_into
_write_result = struct.Struct("<B7xQQ8x").pack_into
_write_char = struct.Struct("<B7xI20x").pack_into


def writer(kind: Any, resources: Resources) -> Writer:
    """The writer of a WIT type; TypeError for one that cannot cross."""
    entry = PRIMITIVES.get(type(kind))
    if entry is not None:
        number, character = entry
        pack = struct.Struct(f"<B7x{padded(character)[2:]}").pack_into
        return lambda cell, value, handles: pack(MEM, cell, number, value)
    make = _WRITERS.get(type(kind))
    if make is None:
        raise TypeError(f"values of type {type(kind).__name__} cannot be made by the host")
    return make(kind, resources)


def _char_writer(_: Any, resources: Resources) -> Writer:
    return lambda cell, value, handles: _write_char(MEM, cell, _CHAR, ord(value))


def _put_text(at: int, text: str) -> None:
    data = text.encode()
    _capi.new_bytes(at, len(data), data)


def _string_writer(_: Any, resources: Resources) -> Writer:
    def write(cell: int, value: str, handles: Handles) -> None:
        _put_text(cell + 8, value)
        MEM[cell] = _STRING

    return write


def _enum_writer(kind: Any, resources: Resources) -> Writer:
    names = {name: name.encode() for name in kind.names}

    def write(cell: int, value: str, handles: Handles) -> None:
        name = names[value]
        _capi.new_bytes(cell + 8, len(name), name)
        MEM[cell] = _ENUM

    return write


def _list_writer(kind: Any, resources: Resources) -> Writer:
    entry = PRIMITIVES.get(type(kind.element))
    if entry is not None:
        return _bytes_writer if entry[1] == "B" else _numbers_writer(*entry)
    element = writer(kind.element, resources)

    def write(cell: int, value: Any, handles: Handles) -> None:
        at = start_list(cell, len(value))
        for item in value:
            element(at, item, handles)
            at += CELL

    return write


def start_list(cell: int, size: int) -> int:
    """Make `cell` a list of `size` cells, each a valid value already, and return the first."""
    _capi.new_list(cell + 8, size)
    at: int = read_word(MEM, cell + 16)[0]
    if size:
        MEM[at : at + size * CELL] = bytes(size * CELL)
    MEM[cell] = _LIST
    return at


def _bytes_writer(cell: int, value: Any, handles: Handles) -> None:
    data = bytes(value)
    size = len(data)
    _capi.new_list(cell + 8, size)
    if size:
        at = read_word(MEM, cell + 16)[0]
        MEM[at : at + size * CELL : CELL] = b"\x02" * size
        MEM[at + 8 : at + size * CELL : CELL] = data
    MEM[cell] = _LIST


def _numbers_writer(number: int, character: str) -> Writer:
    width = struct.calcsize(character)
    first, step = 8 // width, CELL // width
    kind = bytes((number,))
    items = "b" if character == "?" else character
    pack = struct.Struct(f"<B7x{padded(character)[2:]}").pack_into

    def write(cell: int, value: Any, handles: Handles) -> None:
        size = len(value)
        _capi.new_list(cell + 8, size)
        if size == 1:
            pack(MEM, U64[cell + 16 >> 3], number, value[0])
        elif size:
            data = array(items, value)
            at = U64[cell + 16 >> 3]
            end = at + size * CELL
            MEM[at:end:CELL] = kind * size
            MEM[at:end].cast(items)[first::step] = memoryview(data)  # type: ignore[call-overload]
        MEM[cell] = _LIST

    return write


def _tuple_writer(kind: Any, resources: Resources) -> Writer:
    elements = [writer(each, resources) for each in kind.elements]

    def write(cell: int, value: tuple[Any, ...], handles: Handles) -> None:
        at = start_tuple(cell, len(elements))
        for element, item in zip(elements, value, strict=True):
            element(at, item, handles)
            at += CELL

    return write


def start_tuple(cell: int, size: int) -> int:
    """Make `cell` a tuple of `size` cells, each a valid value already, and return the first."""
    _capi.new_tuple(cell + 8, size)
    at: int = read_word(MEM, cell + 16)[0]
    MEM[at : at + size * CELL] = bytes(size * CELL)
    MEM[cell] = _TUPLE
    return at


def _record_writer(kind: Any, resources: Resources) -> Writer:
    fields = [(name, name.encode(), writer(each, resources)) for name, each in kind.fields]

    def write(cell: int, value: dict[str, Any], handles: Handles) -> None:
        _capi.new_record(cell + 8, len(fields))
        at = read_word(MEM, cell + 16)[0]
        for name, text, field in fields:
            _capi.new_bytes(at, len(text), text)
            field(at + 16, value[name], handles)
            at += FIELD
        MEM[cell] = _RECORD

    return write


def _boxed(payload: Writer) -> Callable[[Any, Handles], int]:
    """Puts a value into a cell of wasmtime's own and gives its address.

    It is built in one scratch cell per place in a type: types are no more recursive than calls
    of one writer are, and nothing is written from two threads.
    """

    scratch = Cells()
    address = scratch.address

    def box(value: Any, handles: Handles, _alive: Cells = scratch) -> int:
        payload(address, value, handles)
        pointer: int = _capi.box_value(address)
        return pointer

    return box


def _option_writer(kind: Any, resources: Resources) -> Writer:
    payload, scratch = writer(kind.payload, resources), Cells()
    address, box = scratch.address, _capi.box_value

    def write(cell: int, value: Any, handles: Handles, _alive: Cells = scratch) -> None:
        if value is None:
            write_pointer(MEM, cell, OPTION, 0)
        else:
            payload(address, value, handles)
            write_pointer(MEM, cell, OPTION, box(address))

    return write


def _result_writer(kind: Any, resources: Resources) -> Writer:
    good = _boxed(writer(kind.ok, resources)) if kind.ok else None
    bad = _boxed(writer(kind.err, resources)) if kind.err else None

    def write(cell: int, value: Any, handles: Handles) -> None:
        if not isinstance(value, Ok | Err):
            raise TypeError(f"a result must be Ok or Err, not {value!r}")
        box = good if isinstance(value, Ok) else bad
        pointer = box(value.value, handles) if box else 0
        _write_result(MEM, cell, _RESULT, isinstance(value, Ok), pointer)

    return write


def _variant_writer(kind: Any, resources: Resources) -> Writer:
    boxes = {name: each and _boxed(writer(each, resources)) for name, each in cases(kind)}

    def write(cell: int, value: tuple[str, Any], handles: Handles) -> None:
        name, payload = value
        box = boxes[name]
        pointer = box(payload, handles) if box else 0
        _put_text(cell + 8, name)
        _capi.write_word(MEM, cell + 24, pointer)
        MEM[cell] = _VARIANT

    return write


def _flags_writer(kind: Any, resources: Resources) -> Writer:
    known = list(kind.names)

    def write(cell: int, value: set[str], handles: Handles) -> None:
        if not value <= set(known):
            raise ValueError(f"no such flags: {sorted(value - set(known))}")
        names = [name for name in known if name in value]
        _capi.new_flags(cell + 8, len(names))
        at = read_word(MEM, cell + 16)[0]
        for index, name in enumerate(names):
            _put_text(at + 16 * index, name)
        MEM[cell] = _FLAGS

    return write


def _own_writer(kind: Any, resources: Resources) -> Writer:
    number = resources.find(kind.ty)
    if number is None:
        raise TypeError("a resource type that no imported interface defines")

    def write(cell: int, value: Any, handles: Handles) -> None:
        handle = _capi.new_handle(handles.context, handles.add(value), number)
        write_pointer(MEM, cell, RESOURCE, handle)

    return write


_WRITERS: dict[Any, Callable[[Any, Resources], Writer]] = {
    wit.Char: _char_writer,
    wit.String: _string_writer,
    wit.EnumType: _enum_writer,
    wit.ListType: _list_writer,
    wit.TupleType: _tuple_writer,
    wit.RecordType: _record_writer,
    wit.OptionType: _option_writer,
    wit.ResultType: _result_writer,
    wit.VariantType: _variant_writer,
    wit.FlagsType: _flags_writer,
    wit.OwnType: _own_writer,
}
