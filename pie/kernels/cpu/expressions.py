"""The expressions of a compiled function, and the variables that they read."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import Any, Protocol, runtime_checkable

import attrs
from llvmlite import ir

from .emit import I1, Emit
from .emit import Value as Bits
from .operators import BUILTINS, CONSTANT, binary, compare, negative
from .shapes import (
    Number,
    Shape,
    Value,
    as_shape,
    common,
    element,
    entries,
    field,
    is_true,
    joined,
    lifted,
    load,
    types_of,
)


class Caller(Protocol):
    """What compiles the functions that are called; see `compiler.Unit`."""

    def call(self, e: Emit, python: Any, values: Sequence[Value], *, apart: bool) -> Value: ...


@runtime_checkable
class Callee(Protocol):
    """What compiled code can call beside Python's functions."""

    def called(self, unit: Any, e: Emit, values: Sequence[Value], /) -> Value: ...


@attrs.define(eq=False)
class Scope:
    """Names and what they stand for."""

    unit: Caller
    e: Emit
    globals: Mapping[str, Any]
    _variables: dict[str, tuple[Shape, list[Bits]]] = attrs.field(factory=dict, init=False)
    """The shape of each, and where its parts are."""

    @property
    def b(self) -> Any:
        return self.e.b

    def assign(self, name: str, value: Value) -> None:
        """Give a variable a value, which has to fit the first it had."""
        if name not in self._variables:
            with self.b.goto_entry_block():
                slots = [self.b.alloca(kind) for kind in types_of(value.shape)]
            self._variables[name] = value.shape, slots
        shape, slots = self._variables[name]
        for part, slot in zip(as_shape(self.b, value, shape).parts, slots, strict=True):
            self.b.store(part, slot)

    def value(self, node: ast.expr) -> Value:
        """What an expression gives."""
        known = self._known(node)
        if known is not None:
            return lifted(known)
        match node:
            case ast.Name() if node.id in self._variables:
                shape, slots = self._variables[node.id]
                return Value(shape, tuple(self.b.load(slot) for slot in slots))
            case ast.Tuple():
                return joined([self.value(each) for each in node.elts])
            case ast.Attribute():
                return load(self.b, *field(self.b, self.value(node.value), node.attr))
            case ast.Subscript():
                return self._element(node)
            case ast.Call():
                return self._call(node)
            case ast.BinOp():
                left, right = self.value(node.left), self.value(node.right)
                return binary(self.b, node.op, left, right)
            case ast.UnaryOp(op=ast.USub()):
                return negative(self.b, self.value(node.operand))
            case ast.IfExp():
                return self._either(node)
            case ast.Compare() | ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
                return Value(Number.BOOL, (self.truth(node),))
        raise TypeError(f"{ast.unparse(node)} is not understood")

    def _known(self, node: ast.expr) -> Any:
        """What is known when a function is compiled; None: nothing."""
        match node:
            case ast.Constant():
                return node.value
            case ast.Name() if node.id not in self._variables:
                return self.globals.get(node.id, getattr(builtins, node.id, None))
            case ast.Attribute():
                return getattr(self._known(node.value), node.attr, None)
            case ast.UnaryOp(op=ast.USub()):
                operand = self._known(node.operand)
                return None if operand is None else -operand
            case ast.BinOp() if type(node.op) in CONSTANT:
                left, right = self._known(node.left), self._known(node.right)
                unknown = left is None or right is None
                return None if unknown else CONSTANT[type(node.op)](left, right)
        return None

    def _element(self, node: ast.Subscript) -> Value:
        whole = self.value(node.value)
        if isinstance(whole.shape, tuple):
            number = node.slice.value if isinstance(node.slice, ast.Constant) else None
            if not isinstance(number, int):
                raise TypeError("an entry of a tuple is chosen by a constant")
            return entries(whole)[number]
        return load(self.b, *element(self.b, whole, self.value(node.slice)))

    def _call(self, node: ast.Call) -> Value:
        callee = self._known(node.func)
        if node.keywords:
            raise TypeError("arguments have no names here")
        values = [self.value(argument) for argument in node.args]
        if isinstance(callee, FunctionType):
            return self.unit.call(self.e, callee, values, apart=False)
        if isinstance(callee, Callee):
            return callee.called(self.unit, self.e, values)
        if callee not in BUILTINS:
            raise TypeError(f"{ast.unparse(node.func)} cannot be called here")
        return BUILTINS[callee](self.e, *values)

    def _either(self, node: ast.IfExp) -> Value:
        """Only one of the two is computed."""
        b, condition = self.b, self.truth(node.test)
        found: list[tuple[Value, Any]] = []
        with b.if_else(condition) as branches:
            for branch, side in zip(branches, (node.body, node.orelse), strict=True):
                with branch:
                    found.append((self.value(side), b.block))
        (left, _), (right, _) = found
        kind = left.shape if left.shape == right.shape else common(left.shape, right.shape)
        return self._merged(kind, found)

    def _merged(self, shape: Shape, found: list[tuple[Value, Any]]) -> Value:
        after = self.b.block
        for i, (value, block) in enumerate(found):
            self.b.position_before(block.terminator)
            found[i] = as_shape(self.b, value, shape), block
        self.b.position_at_end(after)
        parts = []
        for number, kind in enumerate(types_of(shape)):
            phi = self.b.phi(kind)
            for value, block in found:
                phi.add_incoming(value.parts[number], block)
            parts.append(phi)
        return Value(shape, tuple(parts))

    def truth(self, node: ast.expr) -> Bits:
        """Whether an expression holds, a bit; what need not be computed is not."""
        match node:
            case ast.Compare():
                return self._compared(node)
            case ast.UnaryOp(op=ast.Not()):
                return self.b.not_(self.truth(node.operand))
            case ast.BoolOp():
                return self._joined(node.values, wanted=isinstance(node.op, ast.And))
        return is_true(self.b, self.value(node))

    def _compared(self, node: ast.Compare) -> Bits:
        """Chained comparisons, all of whose sides are computed."""
        sides = [self.value(side) for side in (node.left, *node.comparators)]
        found = None
        for operator, left, right in zip(node.ops, sides, sides[1:], strict=False):
            holds = compare(self.b, operator, left, right)
            found = holds if found is None else self.b.and_(found, holds)
        return found

    def _joined(self, nodes: Sequence[ast.expr], *, wanted: bool) -> Bits:
        """Whether all hold (`wanted`), or one."""
        b, end = self.b, self.b.append_basic_block("joined")
        found = []
        for node in nodes[:-1]:
            bit, following = self.truth(node), b.append_basic_block("following")
            found.append((ir.Constant(I1, int(not wanted)), b.block))
            b.cbranch(bit, *((following, end) if wanted else (end, following)))
            b.position_at_end(following)
        found.append((self.truth(nodes[-1]), b.block))
        b.branch(end)
        b.position_at_end(end)
        phi = b.phi(I1)
        for bit, block in found:
            phi.add_incoming(bit, block)
        return phi
