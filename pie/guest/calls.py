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
import wasmtime.component as wit

from . import _capi
from ._capi import CELL, MEM, Cells, Flag
from .host import HostFunction, Wait
from .instance import Instance
from .readers import read_u32_list, reader
from .resources import Handles
from .slices import is_long, sliced_writer
from .values import Resources, Slices, Writer, padded, primitive
from .writers import OPTION, RESOURCE, write_pointer, writer


@attrs.frozen(eq=False)
class Late:
    """How to write the value of a host call that suspended its guest."""

    write: Writer | None
    slices: Slices | None


@attrs.define(eq=False)
class GuestState:
    """What host calls need of their guest."""

    instance: Instance
    handles: Handles
    flag: Flag = attrs.field(factory=Flag)
    suspended: Any = None
    """What the guest waits for off the stack: a `Wait`, a coroutine, or a value too long to be
    written in one go."""
    results: int = 0
    """Where its value belongs."""
    late: Late = Late(None, None)
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
        handles = GUESTS[context].handles
        value = handles.table.pop(rep)
        if hasattr(value, "close"):
            handles.dropped.append(value)
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
        "unpack": unpack and unpack.unpack_from,
    }
    names |= _HANDLE_NAMES if _capi.LAYOUT else {"take_rep": _capi.take_rep}
    lines = ["guest = GUESTS[context]", "handles = guest.handles", *reads]
    lines.append(f"value = call({', '.join(['guest.instance', *arguments])})")
    if any(_may_give(each) for _, each in kind.params):
        lines.append("handles.given.clear()")
    names["write"] = write = kind.result and writer(kind.result, resources)
    writes = _writes(kind.result, resources)
    if not function.suspends:
        return _immediate(name, lines + writes, names)
    late = Late(write, kind.result and sliced_writer(kind.result, resources))
    return _suspending(name, lines, writes, names | {"late": late})


def _may_give(kind: Any) -> bool:
    """Whether an argument of this type may hand over resources."""
    if isinstance(kind, wit.ListType):
        return _may_give(kind.element)
    plain = wit.String | wit.Char | wit.EnumType | wit.FlagsType | wit.BorrowType
    return primitive(kind) is None and not isinstance(kind, plain)


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
        elif isinstance(each, wit.String):
            layout += "8xQQ8x"
            targets += [f"size{index}", f"at{index}"]
            reads.append(f"{value} = str(MEM[at{index}:at{index} + size{index}], 'utf-8')")
        elif isinstance(each, wit.ListType) and isinstance(each.element, wit.U32):
            layout += "8xQQ8x"
            targets += [f"size{index}", f"at{index}"]
            reads.append(f"{value} = numbers(size{index}, at{index})")
            names["numbers"] = read_u32_list
        elif isinstance(each, wit.OwnType | wit.BorrowType):
            layout += "8xQ16x"
            targets.append(f"handle{index}")
            reads += _taking(f"handle{index}")
            owned = isinstance(each, wit.OwnType)
            reads.append(f"{value} = handles." + ("give(rep)" if owned else "table[rep]"))
        else:
            layout += f"{CELL}x"
            names[f"read{index}"] = reader(each)
            reads.append(f"{value} = read{index}(arguments + {index * CELL}, handles)")
        arguments.append(value)
    if targets:
        reads.insert(0, f"{', '.join(targets)}, = unpack(MEM, arguments)")
    return (struct.Struct("<" + layout) if targets else None), reads, arguments, names


# Handles come with nearly every call. What `_capi.take_rep` and `_capi.new_handle` do is written
# out in the trampolines: as calls it was a tenth of the host's time.

_HANDLE_NAMES: dict[str, Any] = {
    "U32": _capi.U32,
    "any_to_host": _capi.any_to_host,
    "box_value": _capi.box_value,
    "check": _capi.check,
    "host_delete": _capi.host_delete,
    "host_to_any": _capi.host_to_any,
    "slot": _capi.slot,
    "write_pointer": write_pointer,
}
_scratch = Cells()


def _taking(handle: str) -> list[str]:
    """Statements that leave the representation behind `handle` in `rep`."""
    if _capi.LAYOUT is None:
        return [f"rep = take_rep(context, {handle})"]
    return [
        f"error = any_to_host(context, {handle}, {_capi.SLOT})",
        "if error: check(error)",
        "host = slot.value",
        f"rep = U32[host + {_capi.REP_OFFSET} >> 2]",
        "host_delete(host)",
    ]


def _writes(kind: Any, resources: Resources) -> list[str]:
    """Statements that write `value` where wasmtime expects it."""
    if kind is None:
        return []
    if _capi.LAYOUT is None:
        return ["write(results, value, handles)"]
    if isinstance(kind, wit.OwnType):
        return _owning(kind, resources, "results")
    if isinstance(kind, wit.OptionType) and isinstance(kind.payload, wit.OwnType):
        boxing = [
            *_owning(kind.payload, resources, str(_scratch.address)),
            f"write_pointer(MEM, results, {OPTION}, box_value({_scratch.address}))",
        ]
        return [
            "if value is None:",
            f"    write_pointer(MEM, results, {OPTION}, 0)",
            "else:",
            *("    " + line for line in boxing),
        ]
    return ["write(results, value, handles)"]


def _owning(kind: Any, resources: Resources, cell: str) -> list[str]:
    return [
        f"U32[{_capi.REP_AT >> 2}] = handles.add(value)",
        f"U32[{_capi.KIND_AT >> 2}] = {resources.find(kind.ty)}",
        f"error = host_to_any(context, {_capi.HOST}, {_capi.SLOT})",
        "if error: check(error)",
        f"write_pointer(MEM, {cell}, {RESOURCE}, slot.value)",
    ]


def _immediate(name: str, lines: list[str], names: dict[str, Any]) -> Any:
    parameters = "data, context, kind, arguments"
    if names["write"] is not None:
        parameters += ", count, results"
    source = f"""
def trampoline({parameters}):
    try:
        {_indented(lines, 8)}
    except BaseException as error:
        return fail(context, error)
    return 0
"""
    return _capi.sync_callback(_compiled(name, source, names), parameters.count(",") + 1)


def _suspending(name: str, lines: list[str], writes: list[str], names: dict[str, Any]) -> Any:
    names |= {
        "Coroutine": CoroutineType,
        "Wait": Wait,
        "is_long": is_long,
        "write_continuation": _capi.write_continuation,
        "write_word": _capi.write_word,
    }
    waits = "made is Wait or made is Coroutine"
    if names["late"].slices is not None:
        waits += " or is_long(value)"
    finish = f"write_continuation(MEM, continuation, {_capi.CONTINUE}, {_capi.DONE}, 0)"
    source = f"""
def trampoline(data, context, kind, arguments, n, results, m, error_slot, continuation):
    try:
        {_indented(lines, 8)}
        made = type(value)
        if {waits}:
            guest.suspended, guest.results, guest.late = value, results, late
            flag = guest.flag.address
            MEM[flag] = 0
            write_continuation(MEM, continuation, {_capi.CONTINUE}, flag, 0)
            return
        {_indented(writes, 8)}
        {finish}
    except BaseException as error:
        {finish}
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
