"""The two thin products of a LoRA adapter for one row, in float32.

Hu et al.: "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022. Every output is a sum
in an order that depends on its length alone, so a row's bits are its own, and it does not matter
into how many calls the outputs are cut.
"""

from __future__ import annotations

from functools import partial

from .emit import F32, I64, Emit, Value, const, vector
from .library import load

_TOGETHER = 4
"""Outputs that are computed side by side, so that a sum need not wait for the one before it."""


def _dots(
    e: Emit, x: Value, matrix: Value, length: Value, out: Value, count: int, add: bool
) -> None:
    """out[i] (+)= x . row i of `matrix` [count, length]."""
    b = e.b
    rows = [e.at(matrix, b.mul(length, const(I64, i)), 4) for i in range(count)]
    whole = b.lshr(length, const(I64, e.lanes.bit_length() - 1))
    sums = _summed(e, x, rows, whole, const(I64, 0), e.lanes)
    done = b.mul(whole, const(I64, e.lanes))
    rest = _summed(e, x, rows, b.sub(length, done), done, 1)
    for i, (wide, single) in enumerate(zip(sums, rest, strict=True)):
        value = b.fadd(e.total(wide), b.extract_element(single, const(I64, 0)))
        if add:
            value = b.fadd(e.load(F32, out, 4 * i), value)
        e.store(value, out, 4 * i)


def _summed(
    e: Emit, x: Value, rows: list[Value], times: Value, first: Value, width: int
) -> list[Value]:
    """Per row the products from value `first` on, `width` lanes of them `times` times, summed."""
    b, kind = e.b, vector(F32, width)
    zeros = [const(kind, 0.0)] * len(rows)
    before, then, done = b.block, b.append_basic_block("some"), b.append_basic_block("summed")
    b.cbranch(b.icmp_signed(">", times, const(I64, 0)), then, done)
    b.position_at_end(then)

    def step(i: Value, sums: list[Value]) -> list[Value]:
        at = b.mul(e.at(first, i, width), const(I64, 4))
        these = e.load(kind, x, at)
        return [
            e.fma(these, e.load(kind, row, at), total)
            for row, total in zip(rows, sums, strict=True)
        ]

    results = e.loop(times, zeros, step)
    after = b.block
    b.branch(done)
    b.position_at_end(done)
    phis = []
    for zero, result in zip(zeros, results, strict=True):
        phi = b.phi(kind)
        phi.add_incoming(zero, before)
        phi.add_incoming(result, after)
        phis.append(phi)
    return phis


def _product(
    e: Emit, x: Value, matrix: Value, rows: Value, length: Value, out: Value, add: bool
) -> None:
    """out[rows] (+)= matrix [rows, length] x, some rows at a time and then one by one."""
    b = e.b
    whole = b.sdiv(rows, const(I64, _TOGETHER))
    done = b.mul(whole, const(I64, _TOGETHER))
    for count, times, first in ((_TOGETHER, whole, const(I64, 0)), (1, b.sub(rows, done), done)):

        def part(i: Value, _: list[Value], count: int, first: Value) -> list[Value]:
            row = e.at(first, i, count)
            _dots(e, x, e.at(matrix, b.mul(row, length), 4), length, e.at(out, row, 4), count, add)
            return []

        body = partial(part, count=count, first=first)
        e.when(b.icmp_signed(">", times, const(I64, 0)), partial(_loop, e, times, body))


def _loop(e: Emit, times: Value, body: partial[list[Value]]) -> None:
    e.loop(times, [], body)


def emit_down(e: Emit, x: Value, down: Value, ranks: Value, hidden: Value, t_out: Value) -> None:
    """t_out[ranks] = down [ranks, hidden] x: `x` [hidden] is the normed row."""
    _product(e, x, down, ranks, hidden, t_out, False)


def emit_add(
    e: Emit, t: Value, up: Value, ranks: Value, first_row: Value, count: Value, out: Value
) -> None:
    """out[count] += rows `first_row` and following of `up` [rows, ranks], by t [ranks]."""
    start = e.at(up, e.b.mul(first_row, ranks), 4)
    _product(e, t, start, count, ranks, out, True)


lora_down, lora_add = load("lora", {"lora_down": emit_down, "lora_add": emit_add})
