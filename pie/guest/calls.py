"""Host calls: from a guest's stack into a Python function and back.

For every imported function one trampoline is generated from its WIT type: it reads all
arguments with one `struct` call where it can, calls the host function, and writes the result
in place. It runs on the guest's own stack, so it does as little as possible; what waits is
handed to the guest's task, which runs on a normal one (see `pie.guest.driver`).
"""

from __future__ import annotations

import struct
from types import CoroutineType
from typing import Any

import attrs

from . import _capi
from ._capi import CELL, MEM, Flag
from .host import HostFunction, Wait
from .instance import Instance
from .readers import reader
from .resources import Handles
from .slices import is_long, sliced_writer
from .values import Resources, Slices, Writer, padded, primitive
from .writers import writer


@attrs.frozen(eq=False)
class Suspended:
    """A host call whose guest is off the stack until `results` is written."""

    value: Any
    """A `Wait`, a coroutine, or a value too long to be written in one go."""
    results: int
    write: Writer | None
    slices: Slices | None


@attrs.define(eq=False)
class GuestState:
    """What host calls need of their guest."""

    instance: Instance
    handles: Handles
    flag: Flag = attrs.field(factory=Flag)
    suspended: Suspended | None = None
    error: BaseException | None = None
    """What a host function raised: it ends the guest, and its driver raises it again."""


GUESTS: dict[int, GuestState] = {}
"""Every live guest by the address of its store's context, which is all a callback knows."""


NO_GUEST = "a host call before there is a guest"
"""The error of a component's start function that calls the host while its link is tested."""


def fail(context: int, error: BaseException) -> int:
    """Keep `error` for the driver; the result makes wasmtime unwind the guest."""
    guest = GUESTS.get(context)
    if guest is None:
        return _capi.new_error(NO_GUEST)
    guest.error = error
    return _capi.new_error(f"{type(error).__name__}: {error}")


def drop(_: None, context: int, rep: int) -> int:
    """The destructor of every resource type."""
    try:
        GUESTS[context].handles.drop(rep)
    except BaseException as error:  # noqa: BLE001  # nothing may leave a callback: kept for later
        return fail(context, error)
    return 0


def trampoline(name: str, function: HostFunction, kind: Any, resources: Resources) -> Any:
    """The callback for an imported function of type `kind`.

    Raises TypeError when one of its types cannot cross. A value is dropped when the import has
    no result.
    """
    unpack, reads, arguments, names = _arguments(kind)
    names |= {
        "GUESTS": GUESTS,
        "MEM": MEM,
        "call": function.implementation,
        "fail": fail,
        "take_rep": _capi.take_rep,
        "unpack": unpack and unpack.unpack_from,
    }
    lines = ["guest = GUESTS[context]", "handles = guest.handles", *reads]
    lines.append(f"value = call({', '.join(['guest.instance', *arguments])})")
    if any(_may_give(each) for _, each in kind.params):
        lines.append("handles.given.clear()")
    names["write"] = kind.result and writer(kind.result, resources)
    if function.suspends:
        slices = kind.result and sliced_writer(kind.result, resources)
        return _suspending(name, lines, names, slices)
    if kind.result is not None:
        lines.append("write(results, value, handles)")
    return _immediate(name, lines, names)


def _may_give(kind: Any) -> bool:
    """Whether an argument of this type may hand over resources."""
    plain = ("String", "Char", "EnumType", "FlagsType", "BorrowType")
    return primitive(kind) is None and type(kind).__name__ not in plain


def _arguments(kind: Any) -> tuple[struct.Struct | None, list[str], list[str], dict[str, Any]]:
    """How to read the arguments: one struct, statements, expressions, the names they use."""
    layout, targets, reads, arguments = "", [], [], []
    names: dict[str, Any] = {}
    for index, (_, each) in enumerate(kind.params):
        value = f"v{index}"
        character = primitive(each)
        if character is not None:
            layout += padded(character)
            targets.append(value)
        elif type(each).__name__ == "String":
            layout += "8xQQ8x"
            targets += [f"size{index}", f"at{index}"]
            reads.append(f"{value} = str(MEM[at{index}:at{index} + size{index}], 'utf-8')")
        elif type(each).__name__ in ("OwnType", "BorrowType"):
            layout += "8xQ16x"
            targets.append(f"handle{index}")
            object_of = "give({})" if type(each).__name__ == "OwnType" else "table[{}]"
            rep = f"take_rep(context, handle{index})"
            reads.append(f"{value} = handles.{object_of.format(rep)}")
        else:
            layout += f"{CELL}x"
            names[f"read{index}"] = reader(each)
            reads.append(f"{value} = read{index}(arguments + {index * CELL}, handles)")
        arguments.append(value)
    if targets:
        reads.insert(0, f"{', '.join(targets)}, = unpack(MEM, arguments)")
    return (struct.Struct("<" + layout) if targets else None), reads, arguments, names


def _immediate(name: str, lines: list[str], names: dict[str, Any]) -> Any:
    source = f"""
def trampoline(data, context, kind, arguments, count, results):
    try:
        {_indented(lines, 8)}
    except BaseException as error:
        return fail(context, error)
    return 0
"""
    return _capi.sync_callback(_compiled(name, source, names), 6)


def _suspending(name: str, lines: list[str], names: dict[str, Any], slices: Slices | None) -> Any:
    names |= {
        "Coroutine": CoroutineType,
        "Suspended": Suspended,
        "Wait": Wait,
        "finish": _capi.finish,
        "is_long": is_long,
        "slices": slices,
        "write_word": _capi.write_word,
    }
    waits = "type(value) is Wait or type(value) is Coroutine"
    if slices is not None:
        waits += " or is_long(value)"
    write = "write(results, value, handles)" if names["write"] else "pass"
    source = f"""
def trampoline(data, context, kind, arguments, n, results, m, error_slot, continuation):
    try:
        {_indented(lines, 8)}
        if {waits}:
            guest.suspended = Suspended(value, results, write, slices)
            guest.flag.pending(continuation)
            return
        {write}
        finish(continuation)
    except BaseException as error:
        finish(continuation)
        write_word(MEM, error_slot, fail(context, error))
"""
    return _capi.async_callback(_compiled(name, source, names))


def _indented(lines: list[str], spaces: int) -> str:
    return ("\n" + " " * spaces).join(lines)


def _compiled(name: str, source: str, names: dict[str, Any]) -> Any:
    exec(compile(source, f"<{name}>", "exec"), names)
    return names["trampoline"]


def refuse(message: str, error: type[Exception]) -> Any:
    """A callback that traps with `message`, whatever the type of the function."""

    def trampoline(_: None, context: int) -> int:
        return fail(context, error(message))

    return _capi.sync_callback(trampoline, 2)
