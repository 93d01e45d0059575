"""Products of packed matrices and activation rows, in tiles of rows x 16 outputs.

A tile goes over the inputs once and keeps its sums in registers. What is done to one row is the
same in tiles of any height, in the same order, so a row's outputs never depend on its company;
for integer kinds they do not depend on the target either:

    sum = fma(float(group's integer sum) * the row's scale, d, sum), then for minima
    sum = fma(m, the row's scale * sum of codes, sum).
"""

from __future__ import annotations

from functools import partial

from .dot import DOTS, Dot, Operand, State, dot_bf16, lower, upper
from .emit import F32, I32, I64, Emit, Value, const
from .layout import BLOCK, GROUP, GROUP_BYTES, Kind
from .library import call_once, load
from .rows import LESS, SCALE, SCALED_SUM, form_of, group_bytes

_LINE = 64
_HALVES = 2 * BLOCK
"""Bytes of the scales of a group."""

_AHEAD = 2560
"""Bytes from what is multiplied to what is fetched from memory."""


def heights(lanes: int) -> tuple[int, ...]:
    """Rows of the tiles, the tallest first; the others are the powers of two below."""
    return (8, 4, 2, 1) if lanes == 16 else (4, 2, 1)


class _Tile:
    """Emits the product of `rows` rows and one block."""

    def __init__(self, e: Emit, kind: Kind, rows: int, weights: Value, inputs: Value) -> None:
        self.e, self.kind, self.rows, self.weights = e, kind, rows, weights
        self.parts = range(BLOCK // e.lanes)
        self.groups = e.b.sdiv(inputs, const(I64, GROUP))

    def lines(self, address: Value, line: int) -> list[Value]:
        """A line as vectors of 32-bit lanes."""
        width = 4 * self.e.lanes
        return [self.e.load(self.e.I, address, line * _LINE + p * width) for p in self.parts]

    def factors(self, address: Value) -> list[Value]:
        """16 halves as vectors of float32."""
        return [self.e.halves(address, 2 * self.e.lanes * p) for p in self.parts]

    def zeros(self) -> list[Value]:
        return [const(self.e.F, 0.0)] * (self.rows * len(self.parts))


class _IntegerTile(_Tile):
    def group(self, i: Value, rows: list[Value], sums: list[Value]) -> list[Value]:
        e, dot = self.e, DOTS[self.e.target.dot](self.e)
        nibbles = self.kind is Kind.Q4
        lines = e.at(self.weights, i, 320 if nibbles else 8 * _LINE)
        states = []
        for row in rows:
            corrected = dot.biased and not nibbles
            first = e.spread(I32, row, LESS) if corrected else const(e.I, 0)
            states += [dot.begin(not nibbles, first) for _ in self.parts]
        if nibbles:
            for j in range(4):
                pairs = [dot.nibbles(line) for line in self.lines(lines, j)]
                for half in (0, 1):
                    operands = [pair[half] for pair in pairs]
                    states = self.step(dot, states, operands, rows, 16 * half + 4 * j)
        else:
            for j in range(8):
                operands = [dot.signed(line) for line in self.lines(lines, j)]
                states = self.step(dot, states, operands, rows, 4 * j)
        return self.scaled(dot, states, i, lines, rows, sums)

    def step(
        self, dot: Dot, states: list[State], operands: list[Operand], rows: list[Value], at: int
    ) -> list[State]:
        """Four inputs more."""
        new = []
        for row, x in enumerate(self.e.spread(I32, row, at) for row in rows):
            for part in self.parts:
                state = states[row * len(self.parts) + part]
                new.append(dot.add(state, operands[part], x))
        return new

    def scaled(
        self,
        dot: Dot,
        states: list[State],
        i: Value,
        lines: Value,
        rows: list[Value],
        sums: list[Value],
    ) -> list[Value]:
        """The sums with a group's added."""
        e, b, new = self.e, self.e.b, []
        if self.kind is Kind.Q4:
            scales, minima = e.at(lines, 4 * _LINE), e.at(lines, 4 * _LINE + _HALVES)
        else:
            scales = e.at(e.at(self.weights, self.groups, 8 * _LINE), i, _HALVES)
            minima = e.at(scales, self.groups, _HALVES)
        d = self.factors(scales)
        m = [] if self.kind is Kind.Q8 else self.factors(minima)
        for at, row in enumerate(rows):
            scale = e.spread(F32, row, SCALE)
            for part in self.parts:
                at_part = at * len(self.parts) + part
                whole = b.sitofp(dot.sum(states[at_part]), e.F)
                total = e.fma(b.fmul(whole, scale), d[part], sums[at_part])
                if m:
                    total = e.fma(m[part], e.spread(F32, row, SCALED_SUM), total)
                new.append(total)
        return new


class _FloatTile(_Tile):
    """Two sums for each output, which do not wait for each other: even lines' and odd lines'."""

    def zeros(self) -> list[Value]:
        return 2 * super().zeros()

    def group(self, i: Value, rows: list[Value], sums: list[Value]) -> list[Value]:
        e, half = self.e, len(sums) // 2
        lines, sums = e.at(self.weights, i, 16 * _LINE), list(sums)
        for j in range(16):
            for part, line in enumerate(self.lines(lines, j)):
                for at, row in enumerate(rows):
                    index = at * len(self.parts) + part
                    if e.target.bf16:
                        index += half * (j % 2)
                        x = e.spread(I32, row, 4 * j)
                        sums[index] = dot_bf16(e, sums[index], line, x)
                        continue
                    low, high = (e.spread(F32, row, 8 * j + 4 * k) for k in (0, 1))
                    sums[index] = e.fma(lower(e, line), low, sums[index])
                    sums[index + half] = e.fma(upper(e, line), high, sums[index + half])
        return sums


def _emit_tile(
    kind: Kind,
    rows: int,
    e: Emit,
    w: Value,
    inputs: Value,
    x: Value,
    stride: Value,
    out: Value,
    out_stride: Value,
    add: Value,
) -> None:
    """out[rows, 16] = rows at x (`stride` bytes apart) times the block at w, added if `add`."""
    b = e.b
    tile = (_FloatTile if kind is Kind.BF16 else _IntegerTile)(e, kind, rows, w, inputs)
    starts = [e.at(x, b.mul(stride, const(I64, row))) for row in range(rows)]
    width = group_bytes(form_of(kind), e.target)

    def body(i: Value, sums: list[Value]) -> list[Value]:
        ahead = e.at(w, i, GROUP_BYTES[kind])
        for line in range(0, GROUP_BYTES[kind], _LINE):
            e.prefetch(ahead, _AHEAD + line)
        offset = b.mul(i, const(I64, width))
        return tile.group(i, [b.add(start, offset) for start in starts], sums)

    sums = e.loop(tile.groups, tile.zeros(), body)
    if kind is Kind.BF16:
        half = len(sums) // 2
        sums = [b.fadd(x, y) for x, y in zip(sums[:half], sums[half:], strict=True)]
    places = []
    for row in range(rows):
        address = e.at(out, b.mul(out_stride, const(I64, row)))
        places += [e.at(address, 4 * e.lanes * part) for part in tile.parts]

    def store(added: bool) -> None:
        for total, place in zip(sums, places, strict=True):
            e.store(b.fadd(total, e.load(e.F, place)) if added else total, place)

    adding = b.icmp_signed("!=", add, const(I64, 0))
    e.when(adding, partial(store, True))
    e.when(b.not_(adding), partial(store, False))


def _gemm(
    e: Emit,
    kind: Value,
    weights: Value,
    blocks: Value,
    x: Value,
    inputs: Value,
    rows: Value,
    out: Value,
    out_stride: Value,
    add: Value,
) -> None:
    b = e.b
    tallest, *lower_heights = heights(e.lanes)
    zero = const(I64, 0)
    full = b.sdiv(rows, const(I64, tallest))
    some = b.and_(b.icmp_signed(">", blocks, zero), b.icmp_signed(">", rows, zero))

    def of_kind(known: Kind) -> None:
        groups = b.sdiv(inputs, const(I64, GROUP))
        size = b.mul(groups, const(I64, group_bytes(form_of(known), e.target)))
        stride = b.and_(b.add(size, const(I64, 63)), const(I64, -64))

        def block(i: Value, _: list[Value]) -> list[Value]:
            at = e.at(weights, b.mul(groups, i), GROUP_BYTES[known])
            to = e.at(out, i, 4 * BLOCK)

            def tile(height: int, row: Value) -> None:
                start, end = e.at(x, b.mul(row, stride)), e.at(to, b.mul(row, out_stride))
                arguments = (at, inputs, start, stride, end, out_stride, add)
                name = f"pie_tile_{known.name}_{height}"
                call_once(e, name, partial(_emit_tile, known, height), *arguments)

            def many() -> None:
                def step(i: Value, _: list[Value]) -> list[Value]:
                    tile(tallest, b.mul(i, const(I64, tallest)))
                    return []

                e.loop(full, [], step)

            e.when(b.icmp_signed(">", full, zero), many)
            done = b.mul(full, const(I64, tallest))
            rest = b.sub(rows, done)
            for height in lower_heights:
                has = b.and_(rest, const(I64, height))
                e.when(b.icmp_signed("!=", has, zero), partial(tile, height, done))
                done = b.add(done, has)
            return []

        e.loop(blocks, [], block)

    for known in Kind:
        chosen = b.and_(some, b.icmp_signed("==", kind, const(I64, known)))
        e.when(chosen, partial(of_kind, known))


(gemm,) = load("matmul", {"gemm": _gemm})
