"""Does this machine run guests the way the host assumes? For `pie doctor`.

Host functions run on a guest's small stack, called by C in the middle of wasm. Some CPython
versions take such a stack for an overflow, and the layouts of C structs are only as good as the
wasmtime they were read from; both are tried here rather than believed.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from pie.errors import PieError
from pie.offload import inline

from . import _capi
from .host import HostInterface, Ok
from .instance import Instance
from .mappings import guests_possible
from .wasm import WasmHost

DEPTH = 500
"""Python frames a host function may use: ten times what ours do."""

_GUEST = b"""
(component
  (import "pie:selftest/probe" (instance $probe
    (export "thing" (type $thing (sub resource)))
    (type $own (own $thing))
    (export "make" (func (result $own)))
    (export "deep" (func (param "thing" (borrow $thing)) (param "depth" u32) (result u32)))))
  (core func $make (canon lower (func $probe "make")))
  (core func $deep (canon lower (func $probe "deep")))
  (core module $main
    (import "probe" "make" (func $make (result i32)))
    (import "probe" "deep" (func $deep (param i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "run") (result i32)
      (i32.store8 (i32.const 0)
        (i32.ne (call $deep (call $make) (i32.const 500)) (i32.const 500)))
      (i32.const 0)))
  (core instance $i (instantiate $main (with "probe" (instance
    (export "make" (func $make)) (export "deep" (func $deep))))))
  (func $run (result (result (error string)))
    (canon lift (core func $i "run") (memory (core memory $i "memory"))))
  (instance $exports (export "run" (func $run)))
  (export "inferlet:core/run" (instance $exports)))
"""


@attrs.frozen
class Finding:
    """One thing that was tried."""

    name: str
    passed: bool
    detail: str
    needed: bool = True
    """Whether guests cannot run if it fails."""


async def selftest(make_instance: Callable[[], Instance]) -> list[Finding]:
    """Try what guests need; `make_instance` gives an instance that uses no actor."""
    return [_layout(), await _deep_calls(make_instance()), _room()]


def _layout() -> Finding:
    known = _capi.LAYOUT is not None
    detail = "found where expected" if known else "not found: slower calls of the API are used"
    return Finding("layout of resource handles", known, detail, needed=False)


async def _deep_calls(instance: Instance) -> Finding:
    probe = HostInterface("pie:selftest/probe")
    thing = object()

    @probe.function("make")
    def make(instance: Instance) -> object:
        return thing

    @probe.function("deep")
    def deep(instance: Instance, given: object, depth: int) -> int:
        return _nested(depth) if given is thing else 0

    name = f"host calls {DEPTH} frames deep"
    host = WasmHost((probe,), offload=inline)
    try:
        result = await host.run(await host.load(_GUEST, name="selftest"), instance)
    except (PieError, RecursionError, MemoryError) as error:
        return Finding(name, False, f"{type(error).__name__}: {error}")
    finally:
        host.close()
    return Finding(name, result == Ok(), "fine" if result == Ok() else "a wrong value came back")


def _nested(depth: int) -> int:
    return 1 + _nested(depth - 1) if depth else 0


def _room() -> Finding:
    possible = guests_possible()
    detail = f"{possible} small guests fit under vm.max_map_count"
    return Finding("room for guests", possible >= 1000, detail, needed=False)
