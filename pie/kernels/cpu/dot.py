"""Products of weight bytes and activation bytes, four at a time, by each target's instructions.

All are exact: whichever instructions are used, a group's sum is the same integer. A vector has
`lanes` 32-bit lanes, an output each, with 4 neighbouring inputs; activations come as one 32-bit
word of 4 signed bytes in all lanes. A *state* is what the sums of one group are collected in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

from llvmlite import ir

from .emit import BF16, F32, I1, I8, I16, I32, Emit, Value, const, vector

State: TypeAlias = tuple[Value, ...]
Operand: TypeAlias = tuple[Value, ...]


class Dot(ABC):
    """`sum(add(begin(), prepare(w), x))` is the dot product of bytes, plus what it began with."""

    def __init__(self, e: Emit) -> None:
        self.e = e

    biased = False
    """Whether signed weights are taken plus 128, so that sums must begin with -128 * sum(x)."""

    def const(self, value: int) -> Value:
        return const(self.e.I, value)

    def bytes_of(self, value: Value) -> Value:
        return self.e.b.bitcast(value, vector(I8, 4 * self.e.lanes))

    def nibbles(self, line: Value) -> tuple[Operand, Operand]:
        """Two operands of codes 0 .. 15: the low halves of the bytes and the high ones."""
        b, mask = self.e.b, self.const(0x0F0F0F0F)
        return (b.and_(line, mask),), (b.and_(b.lshr(line, self.const(4)), mask),)

    def signed(self, line: Value) -> Operand:
        """An operand of signed bytes."""
        return (line,)

    def flipped(self, line: Value) -> Value:
        """Signed bytes plus 128."""
        return self.e.b.xor(line, self.const(0x80808080 - (1 << 32)))

    @abstractmethod
    def begin(self, first: Value, signed: bool) -> State:
        """A state for nibbles or signed weights; the sum is to start at `first`."""

    @abstractmethod
    def add(self, state: State, weights: Operand, x: Value) -> State: ...

    def sum(self, state: State) -> Value:
        """The state as 32-bit sums."""
        return state[0]


class Vnni(Dot):
    """x86's vpdpbusd: unsigned weights times signed activations, summed in 32 bits."""

    biased = True

    def signed(self, line: Value) -> Operand:
        return (self.flipped(line),)

    def begin(self, first: Value, signed: bool) -> State:
        return (first,)

    def add(self, state: State, weights: Operand, x: Value) -> State:
        name = f"llvm.x86.avx512.vpdpbusd.{32 * self.e.lanes}"
        sums = (state[0], self.bytes_of(weights[0]), self.bytes_of(x))
        return (self.e.call(name, self.e.I, *sums),)


class Maddubs(Dot):
    """AVX2: pairs of products in 16 bits. Nibbles of a whole group fit: 16 * 15 * 127 < 2**15.

    Pairs of signed weights are |w| times x with w's sign, at most 2 * 128 * 127 < 2**15, and go
    to 32 bits at once.
    """

    def signed(self, line: Value) -> Operand:
        size = self.e.overloaded("abs", self.bytes_of(line).type, self.bytes_of(line), I1(0))
        return line, size

    def begin(self, first: Value, signed: bool) -> State:
        return (first if signed else const(vector(I16, 2 * self.e.lanes), 0),)

    def add(self, state: State, weights: Operand, x: Value) -> State:
        e, b, activations = self.e, self.e.b, self.bytes_of(x)
        if len(weights) == 2:
            activations = e.call(
                "llvm.x86.avx2.psign.b", activations.type, activations, self.bytes_of(weights[0])
            )
        pairs = (self.bytes_of(weights[-1]), activations)
        products = e.call("llvm.x86.avx2.pmadd.ub.sw", vector(I16, 2 * e.lanes), *pairs)
        if len(weights) == 2:
            products = self.widened(products)
        return (b.add(state[0], products),)

    def sum(self, state: State) -> Value:
        return state[0] if state[0].type == self.e.I else self.widened(state[0])

    def widened(self, pairs: Value) -> Value:
        """Sums of two neighbours in 32 bits."""
        ones = const(vector(I16, 2 * self.e.lanes), 1)
        return self.e.call("llvm.x86.avx2.pmadd.wd", self.e.I, pairs, ones)


class Sdot(Dot):
    """ARM's sdot: signed times signed, in 4 lanes, summed in 32 bits."""

    def begin(self, first: Value, signed: bool) -> State:
        return (first,)

    def add(self, state: State, weights: Operand, x: Value) -> State:
        b, quarter = self.e.b, vector(I32, 4)
        parts = []
        for start in range(0, self.e.lanes, 4):
            quad = lanes(start, 4)
            total, w, a = (b.shuffle_vector(v, v, quad) for v in (state[0], weights[0], x))
            w, a = (b.bitcast(v, vector(I8, 16)) for v in (w, a))
            parts.append(self.e.call("llvm.aarch64.neon.sdot.v4i32.v16i8", quarter, total, w, a))
        while len(parts) > 1:
            both = lanes(0, 2 * parts[0].type.count)
            parts = [b.shuffle_vector(*parts[i : i + 2], both) for i in range(0, len(parts), 2)]
        return (parts[0],)


class Portable(Dot):
    """Plain shifts, products and sums of 32-bit lanes."""

    def begin(self, first: Value, signed: bool) -> State:
        return (first,)

    def add(self, state: State, weights: Operand, x: Value) -> State:
        b, total = self.e.b, state[0]
        for byte in range(4):
            left, right = self.const(24 - 8 * byte), self.const(24)
            w, a = (b.ashr(b.shl(v, left), right) for v in (weights[0], x))
            total = b.add(total, b.mul(w, a))
        return (total,)


def lanes(start: int, count: int) -> Value:
    """The constant start, start + 1, ..., for shuffles."""
    return ir.Constant(vector(I32, count), list(range(start, start + count)))


DOTS: dict[str, Callable[[Emit], Dot]] = {
    "vnni": Vnni,
    "maddubs": Maddubs,
    "sdot": Sdot,
    "portable": Portable,
}


def upper(e: Emit, pairs: Value) -> Value:
    """The second of two bfloat16 in each 32-bit lane, as float32."""
    mask = const(pairs.type, 0xFFFF0000 - (1 << 32))
    return e.b.bitcast(e.b.and_(pairs, mask), vector(F32, pairs.type.count))


def lower(e: Emit, pairs: Value) -> Value:
    """The first of two bfloat16 in each 32-bit lane, as float32."""
    return e.b.bitcast(e.b.shl(pairs, const(pairs.type, 16)), vector(F32, pairs.type.count))


def dot_bf16(e: Emit, total: Value, x: Value, y: Value) -> Value:
    """total + x . y for pairs of bfloat16 in 32-bit lanes."""
    if e.target.dot == "portable":
        total = e.fma(upper(e, x), upper(e, y), total)
        return e.fma(lower(e, x), lower(e, y), total)
    kind = vector(BF16, 2 * e.lanes)
    pair = (e.b.bitcast(x, kind), e.b.bitcast(y, kind))
    return e.call(f"llvm.x86.avx512bf16.dpbf16ps.{32 * e.lanes}", e.F, total, *pair)
