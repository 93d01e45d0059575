"""The statements of a compiled function."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from llvmlite import ir

from .emit import I1, I8, I64
from .expressions import Scope
from .operators import binary
from .shapes import (
    ArrayOf,
    Number,
    Shape,
    Value,
    as_shape,
    element,
    entries,
    field,
    store,
)


class CannotCompile(TypeError):
    """A function says what is not understood; the text has the file and the line."""


@attrs.define(eq=False)
class Body(Scope):
    """One function in the making."""

    result: Shape
    file: str
    _loops: list[tuple[Any, Any]] = attrs.field(factory=list, init=False)
    """Where `continue` and `break` of the loops around go, the innermost last."""

    def run(self, function: ast.FunctionDef, arguments: Mapping[str, Value]) -> None:
        """Emit all of it; CannotCompile for what is not understood."""
        for name, value in arguments.items():
            self.assign(name, value)
        self._suite(function.body)
        if not self.b.block.is_terminated:
            if self.result == ():
                self.b.ret_void()
            else:  # type checkers see to it that there is a result
                self.b.unreachable()

    def _suite(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            if self.b.block.is_terminated:  # what follows cannot be reached
                return
            try:
                self._statement(statement)
            except CannotCompile:
                raise
            except TypeError as error:
                raise CannotCompile(f"{self.file}:{statement.lineno}: {error}") from error

    def _statement(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Assign(targets=[target]):
                self._put(target, self.value(statement.value))
            case ast.AugAssign():
                self._put(statement.target, self._changed(statement))
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                pass
            case ast.Expr():
                self.value(statement.value)
            case ast.Return():
                self._return(statement)
            case ast.If():
                self._if(statement)
            case ast.While(orelse=[]):
                self._while(lambda: self.truth(statement.test), statement.body)
            case ast.For(orelse=[]):
                self._for(statement)
            case ast.Continue():
                self.b.branch(self._loops[-1][0])
            case ast.Break():
                self.b.branch(self._loops[-1][1])
            case _:
                raise TypeError(f"{type(statement).__name__} is not understood")

    def _put(self, target: ast.expr, value: Value) -> None:
        match target:
            case ast.Name():
                self.assign(target.id, value)
            case ast.Tuple():
                for inner, entry in zip(target.elts, entries(value), strict=True):
                    self._put(inner, entry)
            case ast.Subscript(slice=ast.Slice(lower=None, upper=None)):
                self._clear(self.value(target.value), value)
            case ast.Subscript():
                place = element(self.b, self.value(target.value), self.value(target.slice))
                store(self.b, *place, value)
            case ast.Attribute():
                store(self.b, *field(self.b, self.value(target.value), target.attr), value)
            case _:
                raise TypeError(f"{ast.unparse(target)} cannot be assigned to")

    def _changed(self, statement: ast.AugAssign) -> Value:
        before = self.value(statement.target)
        return binary(self.b, statement.op, before, self.value(statement.value))

    def _clear(self, array: Value, value: Value) -> None:
        """`array[:] = 0`."""
        bits = value.parts[0]
        if not isinstance(array.shape, ArrayOf) or getattr(bits, "constant", None) != 0:
            raise TypeError("whole arrays can only be filled with 0")
        address, count = array.parts
        size = self.b.mul(count, ir.Constant(I64, array.shape.dtype.itemsize))
        pointer = self.b.inttoptr(address, I8.as_pointer())
        nothing, no = ir.Constant(I8, 0), ir.Constant(I1, 0)
        self.e.call("llvm.memset.p0.i64", ir.VoidType(), pointer, nothing, size, no)

    def _return(self, statement: ast.Return) -> None:
        if statement.value is None or self.result == ():
            self.b.ret_void()
            return
        parts = self._as_result(self.value(statement.value), self.result)
        if len(parts) == 1:
            self.b.ret(parts[0])
            return
        whole = ir.Constant(self.b.function.function_type.return_type, ir.Undefined)
        for number, part in enumerate(parts):
            whole = self.b.insert_value(whole, part, number)
        self.b.ret(whole)

    def _as_result(self, value: Value, shape: Shape) -> list[Any]:
        if not isinstance(shape, tuple):
            return list(as_shape(self.b, value, shape).parts)
        both = zip(entries(value), shape, strict=True)
        return [part for each, wanted in both for part in self._as_result(each, wanted)]

    def _if(self, statement: ast.If) -> None:
        condition = self.truth(statement.test)
        with self.b.if_else(condition) as (then, otherwise):
            with then:
                self._suite(statement.body)
            with otherwise:
                self._suite(statement.orelse)

    def _while(
        self,
        holds: Callable[[], Any],
        body: Sequence[ast.stmt],
        first: Callable[[], None] = lambda: None,
        last: Callable[[], None] = lambda: None,
    ) -> None:
        """`first` and `last` are what each round begins and, after `continue` too, ends with."""
        b = self.b
        test, inner, end, after = (
            b.append_basic_block(name) for name in ("test", "inner", "end", "after")
        )
        b.branch(test)
        b.position_at_end(test)
        b.cbranch(holds(), inner, after)
        b.position_at_end(inner)
        first()
        self._loops.append((end, after))
        self._suite(body)
        self._loops.pop()
        if not b.block.is_terminated:
            b.branch(end)
        b.position_at_end(end)
        last()
        b.branch(test)
        b.position_at_end(after)

    def _for(self, statement: ast.For) -> None:
        match statement.iter:
            case ast.Call(func=ast.Name(id="range"), args=arguments):
                self._for_range(statement, [self.value(each) for each in arguments])
            case ast.Tuple(elts=values):
                self._for_entries(statement, values)
            case _:
                raise TypeError(f"{ast.unparse(statement.iter)} cannot be gone through")

    def _for_range(self, statement: ast.For, bounds: Sequence[Value]) -> None:
        b, zero, one = self.b, ir.Constant(I64, 0), ir.Constant(I64, 1)
        given = [as_shape(b, bound, Number.INT).parts[0] for bound in bounds]
        if len(given) == 1:
            given = [zero, *given]
        start, stop, step = [*given, one][:3]
        down = isinstance(step, ir.Constant) and step.constant < 0
        with b.goto_entry_block():
            counter = b.alloca(I64)
        b.store(start, counter)

        def begin() -> None:
            self._put(statement.target, Value(Number.INT, (b.load(counter),)))

        def advance() -> None:
            b.store(b.add(b.load(counter), step), counter)

        self._while(
            lambda: b.icmp_signed(">" if down else "<", b.load(counter), stop),
            statement.body,
            begin,
            advance,
        )

    def _for_entries(self, statement: ast.For, values: Sequence[ast.expr]) -> None:
        """Once for each, one behind the other."""
        b = self.b
        after = b.append_basic_block("after")
        for value in values:
            end = b.append_basic_block("end")
            self._put(statement.target, self.value(value))
            self._loops.append((end, after))
            self._suite(statement.body)
            self._loops.pop()
            if not b.block.is_terminated:
                b.branch(end)
            b.position_at_end(end)
        b.branch(after)
        b.position_at_end(after)
