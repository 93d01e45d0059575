"""From Python functions to LLVM's IR: what it takes to steer kernels, and nothing else.

A *unit* is one module: functions that are called from outside, and all that these call. A function
is compiled once for each combination of its arguments' shapes; an argument that is annotated with
a number has that shape whatever it is given, and so has the result. There are assignments, `if`,
`while`, `for` over `range` and tuples; numbers, records, arrays of them, tuples. A variable keeps
the shape that it is first given, and a range goes down only if its step is a constant below 0.
Nothing is checked when it runs.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, get_args, get_type_hints

import attrs
import numpy as np
from llvmlite import ir

from .emit import Emit
from .shapes import Number, Shape, Value, as_shape, types_of
from .statements import Body, CannotCompile
from .target import Target

_NUMBERS = {
    bool: Number.BOOL,
    int: Number.INT,
    float: Number.FLOAT,
    np.float32: Number.SINGLE,
}


@attrs.frozen(eq=False)
class Made:
    """A function of a module, and the shape of its result."""

    function: Any
    result: Shape


@attrs.define(eq=False)
class Unit:
    """A module in the making."""

    module: Any
    target: Target
    _made: dict[tuple[Any, tuple[Shape, ...]], Made] = attrs.field(factory=dict)
    _begun: set[Any] = attrs.field(factory=set)

    def call(
        self, e: Emit, python: Callable[..., Any], values: Sequence[Value], *, apart: bool
    ) -> Value:
        """Call a Python function, which is compiled if it is new; `apart`: never inlined."""
        hints = _parameters(python)
        if len(hints) != len(values):
            raise TypeError(f"{python.__name__} takes {len(hints)} arguments")
        given = [
            value if shape is None else as_shape(e.b, value, shape)
            for shape, value in zip(hints.values(), values, strict=True)
        ]
        shapes = tuple(value.shape for value in given)
        made = self._made.get((python, shapes))
        if made is None:
            name = f"{python.__module__}.{python.__qualname__}.{len(self.module.globals)}"
            made = self._made[python, shapes] = self._define(python, name, shapes)
            made.function.linkage = "internal"
            if apart:
                made.function.attributes.add("noinline")
        bits = e.b.call(made.function, [part for value in given for part in value.parts])
        kinds = types_of(made.result)
        if len(kinds) < 2:
            return Value(made.result, (bits,) if kinds else ())
        return Value(made.result, tuple(e.b.extract_value(bits, i) for i in range(len(kinds))))

    def export(self, python: Callable[..., Any], symbol: str) -> None:
        """Make a Python function one that can be called from outside, by name."""
        shapes = _parameters(python)
        if None in shapes.values():
            raise CannotCompile(f"{symbol} is not annotated with numbers")
        self._define(python, symbol, tuple(shapes.values()))  # type: ignore[arg-type]

    def _define(self, python: Callable[..., Any], name: str, shapes: tuple[Shape, ...]) -> Made:
        if python in self._begun:
            raise TypeError(f"{python.__name__} calls itself")
        self._begun.add(python)
        result = shape_of(get_type_hints(python).get("return"))
        if result is None:
            raise CannotCompile(f"{name} does not say what it returns")
        kinds = types_of(result)
        returned = kinds[0] if kinds else ir.VoidType()
        if len(kinds) > 1:
            returned = ir.LiteralStructType(kinds)
        taken = [kind for shape in shapes for kind in types_of(shape)]
        function = ir.Function(self.module, ir.FunctionType(returned, taken), name)
        function.attributes.add("nounwind")
        arguments, parts = {}, iter(function.args)
        for parameter, shape in zip(_parameters(python), shapes, strict=True):
            arguments[parameter] = Value(shape, tuple(next(parts) for _ in types_of(shape)))
        emit = Emit(ir.IRBuilder(function.append_basic_block("entry")), self.target)
        body = Body(self, emit, python.__globals__, result, python.__code__.co_filename)
        body.run(_tree(python), arguments)
        self._begun.remove(python)
        return Made(function, result)


def shape_of(hint: Any) -> Shape | None:
    """What an annotation promises; None: nothing."""
    if hint is type(None):
        return ()
    if inner := get_args(hint):
        shapes = [shape_of(each) for each in inner]
        return None if None in shapes else tuple(shapes)  # type: ignore[arg-type]
    return _NUMBERS.get(hint)


def _parameters(python: Callable[..., Any]) -> dict[str, Shape | None]:
    hints = get_type_hints(python)
    return {name: shape_of(hints.get(name)) for name in inspect.signature(python).parameters}


def _tree(python: Callable[..., Any]) -> ast.FunctionDef:
    """The function as it is written, with the lines of its file."""
    lines, first = inspect.getsourcelines(python)
    (function,) = ast.parse(textwrap.dedent("".join(lines))).body
    assert isinstance(function, ast.FunctionDef)
    ast.increment_lineno(function, first - 1)
    return function
