"""Native functions made from emitters, compiled once each: a *library* of them is one object file.

What numba compiles, it compiles again into every function that calls it, directly or not. The
large kernels are compiled here instead and found by name when their callers are linked, so a
caller costs only its own code. The object file is kept beside numba's cache.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import attrs
import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import types
from numba.extending import models, register_model

from pie.errors import UsageError

from .code_folder import code_folder, keep, kept
from .emit import F32, I64, Emit, Value
from .target import Target, detect

Emitter: TypeAlias = Callable[..., None]
"""Emits the body of a function of int64 and, where an argument is annotated `float`, float32."""


def _is_float(parameter: inspect.Parameter) -> bool:
    return parameter.annotation in (float, "float")


def _parameters(emit: Emitter) -> list[inspect.Parameter]:
    return list(inspect.signature(emit).parameters.values())[1:]


def define(module: Any, target: Target, name: str, emit: Emitter, linkage: str = "") -> Any:
    """Add the function `name` to a module."""
    kinds = [F32 if _is_float(parameter) else I64 for parameter in _parameters(emit)]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
    function.linkage = linkage
    function.attributes.add("nounwind")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    emit(Emit(builder, target), *function.args)
    builder.ret_void()
    return function


def call_once(e: Emit, name: str, emit: Emitter, *arguments: Value) -> None:
    """Call what `emit` emits as a function of this module with that name, defined if it is new."""
    function = e.b.module.globals.get(name)
    if function is None:
        function = define(e.b.module, e.target, name, emit, "internal")
        function.attributes.add("noinline")
    e.b.call(function, arguments)


def module_of(target: Target, emitters: Mapping[str, Emitter], triple: str) -> Any:
    """The IR of a library for any machine."""
    module = ir.Module("pie")
    module.triple = triple
    for name, emit in emitters.items():
        define(module, target, name, emit)
    return module


def optimised(module: Any, machine: Any) -> Any:
    """The parsed module after LLVM's passes; loops are left as they were written."""
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(parsed, builder)
    return parsed


def host_machine() -> Any:
    """LLVM's code generator for this processor."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        reloc="pic",
        jit=True,
    )


class Native(types.ExternalFunction):
    """A function of a library: called from Python and from numba-compiled code alike.

    Whole numbers are int64 (addresses, counts), others float32; it returns nothing. From Python
    it runs without the interpreter lock.
    """

    def __init__(self, symbol: str, emit: Emitter, address: int) -> None:
        floats = [_is_float(parameter) for parameter in _parameters(emit)]
        super().__init__(symbol, types.void(*(types.float32 if f else types.int64 for f in floats)))
        kinds = [ctypes.c_float if f else ctypes.c_int64 for f in floats]
        self._call = ctypes.CFUNCTYPE(None, *kinds)(address)

        self._arguments = len(kinds)

    def __call__(self, *arguments: float) -> None:  # type: ignore[override]  # not a signature
        if len(arguments) != self._arguments:  # which ctypes would let pass
            raise TypeError(f"{self.symbol} takes {self._arguments} arguments")
        self._call(*arguments)


register_model(Native)(models.OpaqueModel)


@attrs.frozen(eq=False)
class Library:
    """Loaded functions by name; they stay loaded until the process ends."""

    functions: dict[str, Native]
    engine: Any


_LOADED: list[Library] = []


def load(name: str, emitters: Mapping[str, Emitter], target: Target | None = None) -> list[Native]:
    """The functions in the order of `emitters`, compiled or from the cache; linkable by name."""
    target = target or detect()
    if target is None:
        raise UsageError("there are no packed kernels for this machine")
    machine = host_machine()
    path = code_folder() / f"{name}.o"
    code = kept(path)
    if code is None:
        symbols = {f"pie_{symbol}": emit for symbol, emit in emitters.items()}
        module = optimised(module_of(target, symbols, llvm.get_default_triple()), machine)
        code = machine.emit_object(module)
        keep(path, code)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    functions = {}
    for symbol, emit in emitters.items():
        address = engine.get_function_address(f"pie_{symbol}")
        llvm.add_symbol(f"pie_{symbol}", address)
        functions[symbol] = Native(f"pie_{symbol}", emit, address)
    _LOADED.append(Library(functions, engine))
    return list(functions.values())
