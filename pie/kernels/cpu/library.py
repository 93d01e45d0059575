"""Native functions made from emitters: a *library* of them is one object file.

Compiled functions that call one have it in their own object, once; for Python a library is
compiled by itself, when one of its functions is first called. Objects are kept in `code_folder`.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from . import shapes
from .code_folder import code_folder, keep, kept
from .emit import F32, I64, Emit, Value
from .inlined import as_bits
from .target import Target, require

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


class Native:
    """A function of a library: called from Python and from compiled functions alike.

    Whole numbers are int64 (addresses, counts), others float32; it returns nothing. From Python
    it runs without the interpreter lock.
    """

    def __init__(self, symbol: str, emit: Emitter, address: Callable[[], int]) -> None:
        """`address` is asked for when Python first calls it."""
        self.symbol, self._emit, self._address = symbol, emit, address
        self._floats = [_is_float(parameter) for parameter in _parameters(emit)]
        self._entry: Any = None

    def called(self, unit: object, e: Emit, values: Sequence[shapes.Value]) -> shapes.Value:
        """Call it from a compiled function, whose module it becomes a part of."""
        self._check(values)
        call_once(e, self.symbol, self._emit, *(as_bits(e, value) for value in values))
        return shapes.VOID

    def __call__(self, *arguments: float | np.float32) -> None:
        self._check(arguments)  # which ctypes would let pass
        if self._entry is None:
            kinds = [ctypes.c_float if single else ctypes.c_int64 for single in self._floats]
            self._entry = ctypes.CFUNCTYPE(None, *kinds)(self._address())
        self._entry(*arguments)

    def _check(self, arguments: Sequence[object]) -> None:
        if len(arguments) != len(self._floats):
            raise TypeError(f"{self.symbol} takes {len(self._floats)} arguments")


_ENGINES: list[Any] = []
"""What is loaded stays until the process ends."""


def loaded(
    name: str, symbols: Sequence[str], module: Callable[[], Any], *, keeps: bool = True
) -> list[int]:
    """Addresses of the `symbols` of an object, which the cache has, or is compiled of `module`.

    `keeps`: whether the name of the code folder knows all of its sources.
    """
    machine = host_machine()
    path = code_folder() / f"{name}.o"
    code = kept(path) if keeps else None
    if code is None:
        code = machine.emit_object(optimised(module(), machine))
        if keeps:
            keep(path, code)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _ENGINES.append(engine)
    return [engine.get_function_address(symbol) for symbol in symbols]


def load(name: str, emitters: Mapping[str, Emitter], target: Target | None = None) -> list[Native]:
    """The functions in the order of `emitters`, compiled, or from the cache, when first called."""
    target = target or require()
    symbols = {f"pie_{symbol}": emit for symbol, emit in emitters.items()}

    @cache
    def addresses() -> dict[str, int]:
        def module() -> Any:
            return module_of(target, symbols, llvm.get_default_triple())

        return dict(zip(symbols, loaded(name, list(symbols), module), strict=True))

    return [
        Native(symbol, emit, lambda symbol=symbol: addresses()[symbol])  # type: ignore[misc]
        for symbol, emit in symbols.items()
    ]
