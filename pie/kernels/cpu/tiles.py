"""Tiles: the product of a few activation rows and one block of a packed matrix.

A tile goes over the inputs once and keeps its sums in registers. What is done to one row is the
same in tiles of any height, in the same order, so a row's outputs never depend on its company;
for integer kinds they do not depend on the target either:

    sum = fma(float(group's integer sum) * the row's scale, d, sum), then for minima
    sum = fma(m, the row's scale * sum of codes, sum).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeAlias

from llvmlite import ir

from .dot import DOTS, Dot, Operand, State, dot_bf16, lower, upper
from .emit import F32, I32, I64, Emit, Value, const
from .layout import BLOCK, GROUP, GROUP_BYTES, Kind
from .rows import LESS, SCALE, SCALED_SUM, form_of, group_bytes

_LINE = 64
_HALVES = 2 * BLOCK
"""Bytes of the scales of a group."""

_AHEAD = 4096
"""Bytes from what is multiplied to what is fetched from memory."""


SumAt: TypeAlias = Callable[[int], Value]
"""Gives a sum by its number, when it is asked for."""


def crowded(e: Emit) -> bool:
    """Whether there are 16 registers only."""
    return e.target.machine == "x86_64" and e.lanes == 8


def pinned(e: Emit, values: State) -> State:
    """The same values, computed before all that is written below and used after what is above.

    With 16 registers, LLVM's own order of a group's 100 and more instructions spills most.
    """
    if not crowded(e):
        return values
    kinds = [ir.FunctionType(value.type, [value.type]) for value in values]
    return tuple(
        e.b.asm(kind, "", "=x,0", [value], side_effect=True)
        for kind, value in zip(kinds, values, strict=True)
    )


class _Tile(ABC):
    """Products of `rows` rows and the vectors `parts` of a block at `weights`."""

    def __init__(
        self, e: Emit, kind: Kind, rows: int, parts: Sequence[int], weights: Value, groups: Value
    ) -> None:
        self.e, self.kind, self.weights, self.groups = e, kind, weights, groups
        self.rows, self.parts = rows, parts
        self.places = [(row, part) for row in range(rows) for part in range(len(parts))]

    def line(self, address: Value, line: int) -> list[Value]:
        """A line as vectors of 32-bit lanes, one for each part."""
        at, width = line * _LINE, 4 * self.e.lanes
        return [self.e.load(self.e.I, address, at + part * width) for part in self.parts]

    def factors(self, address: Value) -> list[Value]:
        """16 halves as vectors of float32, one for each part."""
        return [self.e.halves(address, 2 * self.e.lanes * part) for part in self.parts]

    def zeros(self) -> list[Value]:
        return [const(self.e.F, 0.0)] * len(self.places)

    @abstractmethod
    def group(self, i: Value, rows: list[Value], sum_at: SumAt) -> list[Value]:
        """The sums with group i added; `rows` are the addresses of that group."""

    def totals(self, sums: list[Value]) -> list[Value]:
        return sums


class _IntegerTile(_Tile):
    def group(self, i: Value, rows: list[Value], sum_at: SumAt) -> list[Value]:
        e, dot, nibbles = self.e, DOTS[self.e.target.dot](self.e), self.kind is Kind.Q4
        lines = e.at(self.weights, i, GROUP_BYTES[Kind.Q4] if nibbles else 8 * _LINE)
        firsts = [const(e.I, 0)] * self.rows
        if dot.biased and not nibbles:
            firsts = [e.spread(I32, row, LESS) for row in rows]
        states = [dot.begin(firsts[row], not nibbles) for row, _ in self.places]
        for at, operands in self.operands(dot, lines):
            words = [e.spread(I32, row, at) for row in rows]
            states = [
                pinned(e, dot.add(state, operands[part], words[row]))
                for state, (row, part) in zip(states, self.places, strict=True)
            ]
        wholes = [dot.sum(state) for state in states]
        return self.scaled(wholes, i, lines, rows, sum_at)

    def operands(self, dot: Dot, lines: Value) -> Iterator[tuple[int, list[Operand]]]:
        """Weights of 4 inputs, one operand for each part, and where these inputs are in a group."""
        if self.kind is not Kind.Q4:
            for j in range(8):
                yield 4 * j, [dot.signed(line) for line in self.line(lines, j)]
            return
        for j in range(4):
            halves = [dot.nibbles(line) for line in self.line(lines, j)]
            for half in (0, 1):
                yield 16 * half + 4 * j, [both[half] for both in halves]

    def scaled(
        self, wholes: list[Value], i: Value, lines: Value, rows: list[Value], sum_at: SumAt
    ) -> list[Value]:
        e, b, new = self.e, self.e.b, []
        if self.kind is Kind.Q4:
            scales, minima = e.at(lines, 4 * _LINE), e.at(lines, 4 * _LINE + _HALVES)
        else:
            scales = e.at(e.at(self.weights, self.groups, 8 * _LINE), i, _HALVES)
            minima = e.at(scales, self.groups, _HALVES)
        d = self.factors(scales)
        m = [] if self.kind is Kind.Q8 else self.factors(minima)
        for at, (whole, (row, part)) in enumerate(zip(wholes, self.places, strict=True)):
            scaled = b.fmul(b.sitofp(whole, e.F), e.spread(F32, rows[row], SCALE))
            total = e.fma(scaled, d[part], sum_at(at))
            if m:
                total = e.fma(m[part], e.spread(F32, rows[row], SCALED_SUM), total)
            new.append(total)
        return new


class _FloatTile(_Tile):
    """Two sums for each output, which do not wait for each other: even inputs' and odd ones',
    or even pairs' and odd ones'."""

    def zeros(self) -> list[Value]:
        return 2 * super().zeros()

    def totals(self, sums: list[Value]) -> list[Value]:
        half = len(self.places)
        return [self.e.b.fadd(x, y) for x, y in zip(sums[:half], sums[half:], strict=True)]

    def group(self, i: Value, rows: list[Value], sum_at: SumAt) -> list[Value]:
        e, half = self.e, len(self.places)
        sums = [sum_at(at) for at in range(2 * half)]
        lines = e.at(self.weights, i, GROUP_BYTES[self.kind])
        for j in range(16):
            line = self.line(lines, j)
            if e.target.bf16:
                words = [e.spread(I32, row, 4 * j) for row in rows]
                for at, (row, part) in enumerate(self.places, half * (j % 2)):
                    sums[at] = dot_bf16(e, sums[at], line[part], words[row])
                continue
            for odd, unpacked in ((0, lower), (1, upper)):
                weights = [unpacked(e, pairs) for pairs in line]
                words = [e.spread(F32, row, 8 * j + 4 * odd) for row in rows]
                for at, (row, part) in enumerate(self.places, half * odd):
                    sums[at] = e.fma(weights[part], words[row], sums[at])
        return sums


def emit_tile(
    kind: Kind,
    rows: int,
    e: Emit,
    weights: Value,
    inputs: Value,
    x: Value,
    stride: Value,
    out: Value,
    out_stride: Value,
    add: Value,
) -> None:
    """out[rows, 16] = rows at x (`stride` bytes apart) times the block at w, added if `add`."""
    b = e.b
    groups = b.sdiv(inputs, const(I64, GROUP))
    for parts in strips(e, kind, rows):
        tile = (_FloatTile if kind is Kind.BF16 else _IntegerTile)(
            e, kind, rows, parts, weights, groups
        )
        totals = _over_groups(tile, x, stride)
        places = []
        for row, part in tile.places:
            address = e.at(out, b.mul(out_stride, const(I64, row)))
            places.append(e.at(address, 4 * e.lanes * parts[part]))
        adding = b.icmp_signed("!=", add, const(I64, 0))
        e.when(adding, partial(_store, e, totals, places, True))
        e.when(b.not_(adding), partial(_store, e, totals, places, False))


def strips(e: Emit, kind: Kind, rows: int) -> list[Sequence[int]]:
    """The vectors of a block that are multiplied at once: as many as there are registers for."""
    whole = range(BLOCK // e.lanes)
    many = kind is Kind.BF16 and 2 * rows * len(whole) > 8
    return [[part] for part in whole] if many and e.lanes == 8 else [whole]


def _over_groups(tile: _Tile, x: Value, stride: Value) -> list[Value]:
    """The totals of all groups of inputs."""
    e, kind = tile.e, tile.kind
    starts = [e.at(x, e.b.mul(stride, const(I64, row))) for row in range(tile.rows)]
    width = group_bytes(form_of(kind), e.target)

    def group(i: Value, sum_at: SumAt) -> list[Value]:
        ahead = e.at(tile.weights, i, GROUP_BYTES[kind])
        for line in range(0, GROUP_BYTES[kind], _LINE):
            # A tile of one row is the last to read its weights, and Python's own working set
            # should still be in the caches after a step that reads all of them.
            e.prefetch(ahead, _AHEAD + line, once=tile.rows == 1)
        offset = e.b.mul(i, const(I64, width))
        return tile.group(i, [e.b.add(start, offset) for start in starts], sum_at)

    def body(i: Value, sums: list[Value]) -> list[Value]:
        return group(i, sums.__getitem__)

    if not crowded(e) or kind is Kind.BF16 or len(tile.places) <= 4:
        return tile.totals(e.loop(tile.groups, tile.zeros(), body))
    return tile.totals(_in_memory(e, tile.groups, tile.zeros(), group))


def _in_memory(
    e: Emit, groups: Value, zeros: list[Value], group: Callable[[Value, SumAt], list[Value]]
) -> list[Value]:
    """As a loop with sums in registers, but on the stack: products need the registers."""
    width = 4 * e.lanes
    block = e.b.alloca(e.F, len(zeros))
    block.align = width
    slots = e.b.ptrtoint(block, I64)
    kind = ir.FunctionType(ir.VoidType(), [I64])

    def store(sums: list[Value]) -> None:
        for at, value in enumerate(sums):
            e.store(value, slots, at * width, align=width)
        e.b.asm(kind, "", "r,~{memory}", [slots], side_effect=True)  # or LLVM undoes it

    def load(at: int) -> Value:
        return e.load(e.F, slots, at * width, align=width)

    def body(i: Value, _: list[Value]) -> list[Value]:
        store(group(i, load))
        return []

    store(zeros)
    e.loop(groups, [], body)
    return [load(at) for at in range(len(zeros))]


def _store(e: Emit, totals: list[Value], places: list[Value], added: bool) -> None:
    for total, place in zip(totals, places, strict=True):
        e.store(e.b.fadd(total, e.load(e.F, place)) if added else total, place)
