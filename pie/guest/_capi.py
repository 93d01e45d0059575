"""wasmtime's C API through ctypes: the only module that knows ctypes and C layouts.

The library is bound a second time beside wasmtime's own Python layer, with plain integers for
pointers, because an async call of a component suspends in the C API only and because the
pointer objects of the Python layer cost several times a host call. C values are read and
written in place through `MEM`, a view of the whole address space; only addresses that wasmtime
handed out are ever used with it.

A component value is a 32-byte cell: the kind at 0, the payload at 8. Strings, lists, records
and the like are (size, address) pairs there; what an address points to must come from
wasmtime's allocator, which frees it.

Facts of wasmtime 50.0.1 that this module and its users rely on:

* `epoch_deadline_async_yield_and_update` returns nothing, whatever its header says.
* The error of an async host function is read right after its callback returns, never later.
* The results of a suspended host function stay valid until its continuation says it is done.
* A future must be deleted before its store; an invalid configuration aborts the process.
* A borrow is given back only by `resource_any_to_host`.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from ctypes import (
    c_bool,
    c_char,
    c_char_p,
    c_int64,
    c_size_t,
    c_ubyte,
    c_uint32,
    c_uint64,
    c_void_p,
)
from typing import Any

from wasmtime import Config, Engine, WasmtimeError
from wasmtime import _ffi as ffi
from wasmtime.component import ComponentType

CELL = 32
"""Bytes of a component value."""
STACK_BYTES = 2 << 20
"""Of a guest's stack, which its store keeps. Wasm may use a quarter, host calls the rest."""
FIELD = 48
"""Bytes of a record field: its name (size, address), then its value at 16."""

_released = ctypes.CDLL(ffi.dll._name)  # calls release the interpreter lock
_held = ctypes.PyDLL(ffi.dll._name)  # calls keep it: right for everything short
_libc = ctypes.CDLL(None)


def _bind(library: Any, name: str, result: Any, *arguments: Any) -> Any:
    function = library[name]  # item access makes a fresh object, so prototypes do not clash
    function.restype, function.argtypes = result, list(arguments)
    return function


_P = c_void_p
_COMPONENT = "wasmtime_component_"
# The guest runs inside these two: without the lock, or the epoch ticker could never interrupt it.
poll_future = _bind(_released, "wasmtime_call_future_poll", c_bool, _P)
delete_future = _bind(_released, "wasmtime_call_future_delete", None, _P)
_call_async = _bind(
    _held, _COMPONENT + "func_call_async", _P, _P, _P, _P, c_size_t, _P, c_size_t, _P
)
_instantiate_async = _bind(_held, _COMPONENT + "linker_instantiate_async", _P, _P, _P, _P, _P, _P)
_get_func = _bind(_held, _COMPONENT + "instance_get_func", c_bool, _P, _P, _P, _P)
_LINKER = _COMPONENT + "linker_instance_add_"
_add_func = _bind(_held, _LINKER + "func", _P, _P, c_char_p, c_size_t, _P, _P, _P)
_add_func_async = _bind(_held, _LINKER + "func_async", _P, _P, c_char_p, c_size_t, _P, _P, _P)
_add_resource = _bind(_held, _LINKER + "resource", _P, _P, c_char_p, c_size_t, _P, _P, _P, _P)
_error_new = _bind(_held, "wasmtime_error_new", _P, c_char_p)
_store_new = _bind(_held, "wasmtime_store_new", _P, _P, _P, _P)
_store_context = _bind(_held, "wasmtime_store_context", _P, _P)
_store_limiter = _bind(_held, "wasmtime_store_limiter", None, _P, *[c_int64] * 5)
delete_store = _bind(_released, "wasmtime_store_delete", None, _P)
set_epoch_deadline = _bind(_held, "wasmtime_context_set_epoch_deadline", None, _P, c_uint64)
_epoch_yield = _bind(
    _held, "wasmtime_context_epoch_deadline_async_yield_and_update", None, _P, c_uint64
)
_set_fuel = _bind(_held, "wasmtime_context_set_fuel", _P, _P, c_uint64)
_fuel_yield = _bind(_held, "wasmtime_context_fuel_async_yield_interval", _P, _P, c_uint64)
increment_epoch = _bind(_released, "wasmtime_engine_increment_epoch", None, _P)
_set_concurrency = _bind(_held, "wasmtime_config_concurrency_support_set", None, _P, c_bool)
_set_stack = _bind(_held, "wasmtime_config_async_stack_size_set", None, _P, c_size_t)
delete_value = _bind(_held, _COMPONENT + "val_delete", None, _P)
box_value = _bind(_held, _COMPONENT + "val_new", _P, _P)
new_list = _bind(_held, _COMPONENT + "vallist_new_uninit", None, _P, c_size_t)
new_tuple = _bind(_held, _COMPONENT + "valtuple_new_uninit", None, _P, c_size_t)
new_record = _bind(_held, _COMPONENT + "valrecord_new_uninit", None, _P, c_size_t)
new_flags = _bind(_held, _COMPONENT + "valflags_new_uninit", None, _P, c_size_t)
new_bytes = _bind(_held, "wasm_byte_vec_new", None, _P, c_size_t, c_char_p)
_host_new = _bind(_held, _COMPONENT + "resource_host_new", _P, c_bool, c_uint32, c_uint32)
_host_rep = _bind(_held, _COMPONENT + "resource_host_rep", c_uint32, _P)
host_delete = _bind(_held, _COMPONENT + "resource_host_delete", None, _P)
host_to_any = _bind(_held, _COMPONENT + "resource_host_to_any", _P, _P, _P, _P)
any_to_host = _bind(_held, _COMPONENT + "resource_any_to_host", _P, _P, _P, _P)

MEM: memoryview = memoryview((ctypes.c_ubyte * (1 << 47)).from_address(0)).cast("B")
U32, U64 = MEM.cast("I"), MEM.cast("Q")
"""`MEM` as numbers, indexed by address / 4 and address / 8: the quickest way to one of them."""
read_word = struct.Struct("<Q").unpack_from
read_pair = struct.Struct("<QQ").unpack_from
read_triple = struct.Struct("<QQQ").unpack_from
_read_u32 = struct.Struct("<I").unpack_from
write_word = struct.Struct("<Q").pack_into
_write_u32 = struct.Struct("<I").pack_into
write_continuation = struct.Struct("<QQQ").pack_into

slot = c_void_p()
SLOT = ctypes.addressof(slot)
"""Where a C function leaves the one pointer it returns through an argument."""


def address(managed: Any) -> int:
    """The C pointer inside an object of wasmtime's Python layer."""
    value = ctypes.cast(managed.ptr(), c_void_p).value
    assert value is not None
    return value


def take_error(pointer: int) -> str:
    """The text of a wasmtime error, which is freed."""
    error = WasmtimeError._from_ptr(ctypes.cast(pointer, ctypes.POINTER(ffi.wasmtime_error_t)))
    text = str(error)
    error.close()
    return text


def check(pointer: int | None) -> None:
    """Raise the error that a C function returned, if it did."""
    if pointer:
        raise RuntimeError(f"wasmtime: {take_error(pointer)}")


def new_error(text: str) -> int:
    """An error for wasmtime, which frees it."""
    pointer: int = _error_new(text.encode("utf-8", "replace").replace(b"\0", b"?"))
    return pointer


class Cells:
    """`count` component values of our own: arguments, results, or a place to build one in."""

    __slots__ = ("_memory", "address")

    def __init__(self, count: int = 1) -> None:
        self._memory = (c_char * (CELL * count))()
        self.address = ctypes.addressof(self._memory)


# Resource handles


def _find_layout() -> tuple[int, int, int] | None:
    """(object, offset of its representation, of its type) of a host resource, by experiment."""
    host = _host_new(True, 0x1A2B3C4D, 0x5E6F7081)
    words = {offset: _read_u32(MEM, host + offset)[0] for offset in range(0, 16, 4)}
    reps = [offset for offset, word in words.items() if word == 0x1A2B3C4D]
    types = [offset for offset, word in words.items() if word == 0x5E6F7081]
    if len(reps) != 1 or len(types) != 1:
        return None
    _write_u32(MEM, host + reps[0], 77)
    return (host, reps[0], types[0]) if _host_rep(host) == 77 else None


LAYOUT = _find_layout()
"""None when the fields of a host resource are not where they can be found: then the slower
functions of the API serve."""


def _new_handle_in_place(context: int, rep: int, kind: int) -> int:
    U32[REP_AT >> 2] = rep
    U32[KIND_AT >> 2] = kind
    check(host_to_any(context, HOST, SLOT))
    handle: int = slot.value  # type: ignore[assignment]  # set when there is no error
    return handle


def new_handle_by_calls(context: int, rep: int, kind: int) -> int:
    """An owned handle with the representation `rep` of our resource type number `kind`."""
    host = _host_new(True, rep, kind)
    try:
        check(host_to_any(context, host, SLOT))
    finally:
        host_delete(host)
    handle: int = slot.value  # type: ignore[assignment]  # set when there is no error
    return handle


def _take_rep_in_place(context: int, handle: int) -> int:
    error = any_to_host(context, handle, SLOT)
    if error:
        check(error)
    host: int = slot.value  # type: ignore[assignment]  # set when there is no error
    rep: int = U32[host + REP_OFFSET >> 2]
    host_delete(host)
    return rep


def take_rep_by_calls(context: int, handle: int) -> int:
    """The representation behind a handle that a guest passed; a borrow is given back."""
    check(any_to_host(context, handle, SLOT))
    host = slot.value
    rep: int = _host_rep(host)
    host_delete(host)
    return rep


if LAYOUT is None:
    new_handle, take_rep = new_handle_by_calls, take_rep_by_calls
else:
    HOST, REP_OFFSET, _kind_offset = LAYOUT
    REP_AT, KIND_AT = HOST + REP_OFFSET, HOST + _kind_offset
    new_handle, take_rep = _new_handle_in_place, _take_rep_in_place


# Host functions

CONTINUE = ctypes.cast(_libc.strlen, c_void_p).value
"""`strlen` as continuation: a pending call's flag is the empty string, a finished one's is not,
so that wasmtime can ask without entering Python."""


class Flag:
    """The byte at `address` says whether a suspended host call has its results: 0 or 1."""

    __slots__ = ("_bytes", "address")

    def __init__(self) -> None:
        self._bytes = (c_char * 2)()
        self.address = ctypes.addressof(self._bytes)


_done = Flag()
DONE = _done.address
"""The flag of every call that is done when its callback returns."""
MEM[DONE] = 1


# C callers pass all arguments in registers or in order on the stack, so a callback may declare
# only those up to the last one it uses. Those it does not use are declared as bytes, the lowest
# of a register: small ints exist already, where a pointer would be an object made for nobody.
_SYNC_ARGUMENTS = (c_ubyte, _P, c_ubyte, _P, c_ubyte, _P)
_SYNC_PROTOTYPES = [ctypes.CFUNCTYPE(c_size_t, *_SYNC_ARGUMENTS[:count]) for count in range(7)]
_ASYNC_PROTOTYPE = ctypes.CFUNCTYPE(None, c_ubyte, _P, c_ubyte, _P, c_ubyte, _P, c_ubyte, _P, _P)
_DESTRUCTOR_PROTOTYPE = ctypes.CFUNCTYPE(c_size_t, _P, _P, c_uint32)


def sync_callback(function: Callable[..., int], count: int) -> Any:
    """For `function(data, context, type, arguments, n, results)`, or the first `count` of them.

    It returns 0 or an error. The object must live as long as the linker it is added to.
    """
    return _SYNC_PROTOTYPES[count](function)


def async_callback(function: Callable[..., None]) -> Any:
    """For `function(…, results, n, error, continuation)`, which writes one of the last two."""
    return _ASYNC_PROTOTYPE(function)


def destructor(function: Callable[[None, int, int], int]) -> Any:
    """For `function(data, context, rep)`."""
    return _DESTRUCTOR_PROTOTYPE(function)


def add_function(instance: Any, name: str, callback: Any, *, suspends: bool) -> None:
    """Define a function of a linker's instance."""
    add = _add_func_async if suspends else _add_func
    text = name.encode()
    check(add(address(instance), text, len(text), ctypes.cast(callback, c_void_p), None, None))


def add_resource(instance: Any, name: str, kind: Any, callback: Any) -> None:
    """Define a resource type; `kind` must be alive until this returns, or linking aborts."""
    text = name.encode()
    pointer = ctypes.cast(callback, c_void_p)
    check(_add_resource(address(instance), text, len(text), address(kind), pointer, None, None))


# Types


def count_imports(component_type: Any, engine: Any) -> int:
    """Of a component; listing them takes time by the square of this."""
    return int(ffi.wasmtime_component_type_import_count(component_type.ptr(), engine.ptr()))


def count_exports(kind: Any, engine: Any) -> int:
    """Of a component's type, or an instance's; listing them takes time by the square of this."""
    if isinstance(kind, ComponentType):
        return int(ffi.wasmtime_component_type_export_count(kind.ptr(), engine.ptr()))
    return int(ffi.wasmtime_component_instance_type_export_count(kind.ptr(), engine.ptr()))


# Engines, stores and calls


def new_engine(*, fuel: bool) -> Engine:
    """An engine whose guests are interrupted by fuel, or else by epochs."""
    config = Config()
    if fuel:
        config.consume_fuel = True
    else:
        config.epoch_interruption = True
    # With it, 50.0.1 traps every host call that takes two borrows, and has open bugs.
    _set_concurrency(address(config), False)
    _set_stack(address(config), STACK_BYTES)
    return Engine(config)


class Store:
    """The state of one guest. `delete` it after its futures."""

    __slots__ = ("_engine", "_pointer", "context", "renewed")

    def __init__(self, engine: Any, memory_bytes: int) -> None:
        self.renewed = -1
        """The tick in which the guest last began a fresh slice."""
        self._engine = engine  # must outlive the store
        self._pointer: int | None = _store_new(address(engine), None, None)
        self.context: int = _store_context(self._pointer)
        # Limits: bytes of a memory, table elements, instances, tables, memories. A fifth of the
        # tables, with 20,000 elements each, and one memory are enough for CPython and JavaScript.
        _store_limiter(self._pointer, memory_bytes, 100_000, 100, 20, 4)

    def yield_every_tick(self) -> None:
        set_epoch_deadline(self.context, 1)
        _epoch_yield(self.context, 1)

    def yield_every(self, fuel: int) -> None:
        check(_set_fuel(self.context, (1 << 64) - 1))
        check(_fuel_yield(self.context, fuel))

    def yield_at_once(self, *, fuel: bool) -> None:
        """Stop before the first instruction."""
        if fuel:
            self.yield_every(1)
        else:
            self.yield_every_tick()
            set_epoch_deadline(self.context, 0)

    def delete(self) -> None:
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            delete_store(pointer)


class Call:
    """A running call: its future, and where its error will be."""

    __slots__ = ("_error", "_keep", "future")

    def __init__(self, start: Callable[[int], int], keep: object) -> None:
        self._error = c_void_p()
        self._keep = keep
        self.future: int | None = start(ctypes.addressof(self._error))

    def take_error(self) -> str | None:
        """What wasmtime says went wrong, once the future is done."""
        pointer, self._error.value = self._error.value, None
        return None if pointer is None else take_error(pointer)

    def delete(self) -> None:
        """Unwind the guest's stack, if it still has one; none of its code runs."""
        future, self.future = self.future, None
        if future is not None:
            delete_future(future)


def instantiate(store: Store, linker: int, component: int) -> tuple[Any, Call]:
    """A new instance, to be filled by the call."""
    instance = ffi.wasmtime_component_instance_t()
    at = ctypes.addressof(instance)
    call = Call(
        lambda error: _instantiate_async(linker, store.context, component, at, error), instance
    )
    return instance, call


def call_export(store: Store, instance: Any, index: Any, results: Cells) -> Call:
    """Call an export without parameters and with one result."""
    function = ffi.wasmtime_component_func_t()
    at = ctypes.addressof(function)
    found = _get_func(ctypes.addressof(instance), store.context, address(index), at)
    assert found, "the export was there when the program was loaded"
    return Call(
        lambda error: _call_async(at, store.context, None, 0, results.address, 1, error),
        (function, results),
    )
