"""A page's lines and how they are multiplied: what the forms of pages have of their own.

A line holds pairs: of 16 keys two neighbouring dimensions, or of 16 dimensions of V the values of
two neighbouring tokens. It is multiplied by a pair of a query's, which is the same for all 16:
two dimensions of the query, or the weights of two tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import IntEnum

from .dot import dot_bf16, lower, upper
from .emit import F32, I8, I16, I32, I64, Emit, Value, const, vector
from .weights import HEADER, parts


class Form(IntEnum):
    """How K and V are kept; the numbers are what the driver takes."""

    BF16 = 0
    INT8 = 1


Sums = list[Value]
"""Of a query, 16 sums in two vectors: halves of them, or all 16 twice, to be added at the end."""


class Lines(ABC):
    """Emits products of lines."""

    line: int
    """Bytes of a line."""
    pair: int
    """Bytes of a pair of a query's."""
    unrolled: int = 8
    """Lines of one turn of a loop."""

    def __init__(self, e: Emit) -> None:
        self.e = e

    @abstractmethod
    def zeros(self) -> Sums: ...

    @abstractmethod
    def add(
        self, sums: Sequence[Sums], line: Value, odd: int, pairs: Sequence[tuple[Value, int]]
    ) -> None:
        """Add a line, times a pair for each query, to the sums of each query."""

    @abstractmethod
    def scores(self, sums: Sums, query: Value, keys: Value, head_dim: Value) -> list[Value]:
        """16 scores as float32 vectors."""

    @abstractmethod
    def load(self, partial: Value) -> Sums:
        """16 sums of a partial, to go on from."""

    @abstractmethod
    def store(self, sums: Sums, partial: Value) -> None: ...


class Bfloats(Lines):
    """Pairs of bfloat16; a query's are float32 where no instruction multiplies these."""

    line = 64

    def __init__(self, e: Emit) -> None:
        super().__init__(e)
        self.pair = 4 if e.target.bf16 else 8

    def zeros(self) -> Sums:
        return [const(self.e.F, 0.0)] * 2

    def add(
        self, sums: Sequence[Sums], line: Value, odd: int, pairs: Sequence[tuple[Value, int]]
    ) -> None:
        e = self.e
        if e.target.bf16:
            words = e.load(e.I, line)
            for own, (at, offset) in zip(sums, pairs, strict=True):
                own[odd] = dot_bf16(e, own[odd], words, e.spread(I32, at, offset))
            return
        both = [e.load(e.I, line, part) for part in parts(e)]
        for side, take in enumerate((lower, upper)):
            lanes = [take(e, words) for words in both]
            for own, (at, offset) in zip(sums, pairs, strict=True):
                factor = e.spread(F32, at, offset + 4 * side)
                for i, lane in enumerate(lanes):
                    own[i] = e.fma(lane, factor, own[i])

    def scores(self, sums: Sums, query: Value, keys: Value, head_dim: Value) -> list[Value]:
        return [self.e.b.fadd(*sums)] if self.e.target.bf16 else sums

    def load(self, partial: Value) -> Sums:
        e = self.e
        sums = [e.load(e.F, partial, HEADER + part) for part in parts(e)]
        return [*sums, const(e.F, 0.0)] if len(sums) == 1 else sums

    def store(self, sums: Sums, partial: Value) -> None:
        e = self.e
        values = [e.b.fadd(*sums)] if e.target.bf16 else sums
        for value, part in zip(values, parts(e), strict=True):
            e.store(value, partial, HEADER + part)


class Bytes(Lines):
    """Pairs of signed bytes, of a query 16-bit integers; sums are 32-bit integers.

    They cannot overflow: 32767 * 127 times 512, the slots of a segment, is below 2**31.
    """

    line = 32
    pair = 4
    unrolled = 2  # LLVM reorders sums of integers, and with more of them runs out of registers

    def zeros(self) -> Sums:
        return [const(self.e.I, 0)] * 2

    def add(
        self, sums: Sequence[Sums], line: Value, odd: int, pairs: Sequence[tuple[Value, int]]
    ) -> None:
        e = self.e
        size = 2 * e.lanes
        both = []
        for part in parts(e):
            short = e.b.sext(e.load(vector(I8, size), line, part // 2), vector(I16, size))
            both.append(e.b.bitcast(short, e.I))
        for own, (at, offset) in zip(sums, pairs, strict=True):
            factor = e.spread(I32, at, offset)
            for i, words in enumerate(both):
                place = odd if len(both) == 1 else i
                own[place] = e.b.add(own[place], self._products(words, factor))

    def _products(self, x: Value, y: Value) -> Value:
        """x0 * y0 + x1 * y1 for the pairs of 16-bit integers in 32-bit lanes."""
        e, b = self.e, self.e.b
        if e.target.machine == "x86_64":
            pairs = vector(I16, 2 * e.lanes)
            name = {8: "avx2.pmadd.wd", 16: "avx512.pmaddw.d.512"}[e.lanes]
            return e.call(f"llvm.x86.{name}", e.I, b.bitcast(x, pairs), b.bitcast(y, pairs))
        half = const(e.I, 16)
        high = b.mul(b.ashr(x, half), b.ashr(y, half))
        low = b.mul(b.ashr(b.shl(x, half), half), b.ashr(b.shl(y, half), half))
        return b.add(high, low)

    def _whole(self, sums: Sums) -> list[Value]:
        return [self.e.b.add(*sums)] if len(parts(self.e)) == 1 else sums

    def scores(self, sums: Sums, query: Value, keys: Value, head_dim: Value) -> list[Value]:
        e, b = self.e, self.e.b
        scale = e.spread(F32, query, b.shl(head_dim, const(I64, 1)))
        scales = b.add(keys, b.shl(head_dim, const(I64, 5)))
        found = []
        for value, part in zip(self._whole(sums), parts(e), strict=True):
            own = b.fmul(scale, e.load(e.F, scales, part))
            found.append(b.fmul(b.sitofp(value, e.F), own))
        return found

    def load(self, partial: Value) -> Sums:
        e = self.e
        sums = [e.load(e.I, partial, HEADER + part) for part in parts(e)]
        return [*sums, const(e.I, 0)] if len(sums) == 1 else sums

    def store(self, sums: Sums, partial: Value) -> None:
        for value, part in zip(self._whole(sums), parts(self.e), strict=True):
            self.e.store(value, partial, HEADER + part)
