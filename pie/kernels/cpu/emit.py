"""Vector kernels written in Python: a thin layer over LLVM's IR builder.

A kernel is a Python function that emits IR for 64-bit integers (addresses and counts) and floats;
compiled functions call it (`inlined`, `library`) and supply the control flow around it.
Nothing checks an address: callers keep the arrays alive and the counts right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from llvmlite import ir

from .target import Target

Value: TypeAlias = Any
"""An `ir.Value`; llvmlite has no types."""

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F16, F32, F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()


class _BFloat(ir.Type):  # type: ignore[misc]  # llvmlite has no types, and none of this name
    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash("bfloat")


BF16 = _BFloat()

LOG2_E = 1.4426950408889634
"""The logarithm of e to the base 2."""


def vector(kind: Any, count: int) -> Any:
    """The type of `count` values of `kind`."""
    return ir.VectorType(kind, count)


def const(kind: Any, value: float) -> Value:
    """A constant of a scalar or, the same in all lanes, a vector type."""
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)


def _suffix(kind: Any) -> str:
    """How LLVM writes a type in the name of an overloaded intrinsic: v8f32, i16."""
    if isinstance(kind, ir.VectorType):
        return f"v{kind.count}{_suffix(kind.element)}"
    if isinstance(kind, ir.IntType):
        return f"i{kind.width}"
    return {"half": "f16", "float": "f32", "double": "f64"}.get(str(kind), "bf16")


class Emit:
    """Emits into one basic block after the other; `F` and `I` are the target's vector types."""

    def __init__(self, builder: Any, target: Target) -> None:
        self.b = builder
        self.target = target
        self.lanes = target.lanes
        self.F = vector(F32, target.lanes)
        self.I = vector(I32, target.lanes)

    # Functions

    def call(self, name: str, result: Any, *arguments: Value, flags: Sequence[str] = ()) -> Value:
        """Call a function or an intrinsic that is not overloaded, by name."""
        module = self.b.module
        function = module.globals.get(name)
        if function is None:
            kinds = [argument.type for argument in arguments]
            function = ir.Function(module, ir.FunctionType(result, kinds), name)
        return self.b.call(function, arguments, fastmath=tuple(flags))

    def overloaded(
        self, name: str, result: Any, *arguments: Value, of: Any = None, flags: Sequence[str] = ()
    ) -> Value:
        """Call an intrinsic whose name ends in a type: that of `of`, or of the first argument."""
        suffix = _suffix(of or arguments[0].type)
        return self.call(f"llvm.{name}.{suffix}", result, *arguments, flags=flags)

    # Memory

    def at(self, base: Value, offset: Value | int, scale: int = 1) -> Value:
        """The address `base + offset * scale`."""
        if isinstance(offset, int):
            return self.b.add(base, const(I64, offset * scale)) if offset else base
        return self.b.add(base, self.b.mul(offset, const(I64, scale)) if scale != 1 else offset)

    def load(self, kind: Any, address: Value, offset: Value | int = 0, align: int = 1) -> Value:
        pointer = self.b.inttoptr(self.at(address, offset), kind.as_pointer())
        return self.b.load(pointer, align=align)

    def store(self, value: Value, address: Value, offset: Value | int = 0, align: int = 1) -> None:
        pointer = self.b.inttoptr(self.at(address, offset), value.type.as_pointer())
        self.b.store(value, pointer, align=align)

    def prefetch(self, address: Value, offset: int, *, once: bool = False) -> None:
        """Ask for the line at `address + offset`, which need not exist, for reading.

        `once`: it will not be read again, and should push nothing out of the larger caches.
        """
        pointer = self.b.inttoptr(self.at(address, offset), I8.as_pointer())
        flags = [const(I32, 0), const(I32, 0 if once else 3), const(I32, 1)]
        self.call("llvm.prefetch.p0", ir.VoidType(), pointer, *flags)

    # Lanes

    def splat(self, value: Value, count: int = 0) -> Value:
        """`value` in `count` lanes; by default those of the target."""
        kind = vector(value.type, count or self.lanes)
        empty = ir.Constant(kind, ir.Undefined)
        first = self.b.insert_element(empty, value, const(I32, 0))
        return self.b.shuffle_vector(first, empty, const(vector(I32, kind.count), 0))

    def spread(self, kind: Any, address: Value, offset: Value | int = 0) -> Value:
        """A scalar from memory in all lanes."""
        return self.splat(self.load(kind, address, offset))

    def counted(self) -> Value:
        """0, 1, 2, ... in 32-bit lanes."""
        return ir.Constant(self.I, list(range(self.lanes)))

    def halves(self, address: Value, offset: Value | int = 0) -> Value:
        """Float16 from memory as float32, a lane each."""
        return self.b.fpext(self.load(vector(F16, self.lanes), address, offset), self.F)

    # Control flow

    def loop(
        self,
        count: Value | int,
        carried: Sequence[Value],
        body: Callable[[Value, list[Value]], Sequence[Value]],
    ) -> list[Value]:
        """`carried = body(i, carried)` for i in 0 .. count-1; count must be at least 1."""
        b = self.b
        if isinstance(count, int):
            count = const(I64, count)
        before, head, done = b.block, b.append_basic_block("loop"), b.append_basic_block("done")
        b.branch(head)
        b.position_at_end(head)
        index = b.phi(I64)
        index.add_incoming(const(I64, 0), before)
        phis = [b.phi(value.type) for value in carried]
        for phi, value in zip(phis, carried, strict=True):
            phi.add_incoming(value, before)
        results = list(body(index, phis))
        following = b.add(index, const(I64, 1))
        index.add_incoming(following, b.block)
        for phi, value in zip(phis, results, strict=True):
            phi.add_incoming(value, b.block)
        b.cbranch(b.icmp_signed("<", following, count), head, done)
        b.position_at_end(done)
        return results

    def when(self, condition: Value, body: Callable[[], None]) -> None:
        """Do what `body` emits only if `condition` holds."""
        with self.b.if_then(condition):
            body()

    # Arithmetic on float32 vectors

    def fma(self, x: Value, y: Value, z: Value) -> Value:
        """x * y + z, rounded once."""
        return self.overloaded("fma", z.type, x, y, z)

    def maximum(self, x: Value, y: Value) -> Value:
        """The larger; y where x is not a number."""
        return self.b.select(self.b.fcmp_ordered(">", x, y), x, y)

    def minimum(self, x: Value, y: Value) -> Value:
        """The smaller; y where x is not a number."""
        return self.b.select(self.b.fcmp_ordered("<", x, y), x, y)

    def absolute(self, x: Value) -> Value:
        return self.overloaded("fabs", x.type, x)

    def round(self, x: Value) -> Value:
        """To the nearest integer, halves to even."""
        return self.overloaded("rint", x.type, x)

    def highest(self, x: Value) -> Value:
        """The largest lane."""
        return self.overloaded("vector.reduce.fmax", x.type.element, x)

    def total(self, x: Value) -> Value:
        """The sum of float32 lanes, in a fixed tree."""
        zero = const(x.type.element, 0.0)
        return self.overloaded(
            "vector.reduce.fadd", x.type.element, zero, x, of=x.type, flags=("reassoc",)
        )

    def total_int(self, x: Value) -> Value:
        """The sum of integer lanes."""
        return self.overloaded("vector.reduce.add", x.type.element, x)

    def exp(self, x: Value) -> Value:
        """e to the power of x, within about 2 units in the last place; 0 < result, finite.

        x is held in -87 .. 88. By Cody and Waite: x = n ln 2 + f, and a polynomial for e^f.
        """
        b, kind = self.b, x.type
        whole = vector(I32, kind.count)
        x = self.minimum(self.maximum(x, const(kind, -87.0)), const(kind, 88.0))
        n = self.round(b.fmul(x, const(kind, LOG2_E)))
        f = self.fma(n, const(kind, -0.693359375), x)
        f = self.fma(n, const(kind, 2.12194440e-4), f)
        power = const(kind, 1 / 720)
        for factor in (1 / 120, 1 / 24, 1 / 6, 0.5, 1.0, 1.0):
            power = self.fma(power, f, const(kind, factor))
        scale = b.shl(b.add(b.fptosi(n, whole), const(whole, 127)), const(whole, 23))
        return b.fmul(power, b.bitcast(scale, kind))
