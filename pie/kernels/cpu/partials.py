"""What segments contribute to attention: combined in order, then divided by the sum of weights.

For what a partial is, see `weights`.
"""

from __future__ import annotations

from .emit import F32, I32, I64, Emit, Value, const
from .weights import HEADER, parts, power2


def merge(e: Emit, partial: Value, other: Value, head_dim: Value) -> None:
    """Put the following segment's partial into one; merging nothing changes no bit but of zeros."""
    b = e.b
    own, new = e.spread(F32, partial), e.spread(F32, other)
    top = e.maximum(own, new)
    old_factor = power2(e, b.fsub(own, top))
    new_factor = power2(e, b.fsub(new, top))

    def joined(at: Value, of: Value, offset: int, kind: Value) -> Value:
        scaled = b.fmul(e.load(kind, at, offset), old_factor)
        return e.fma(e.load(kind, of, offset), new_factor, scaled)

    def body(i: Value, _: list[Value]) -> list[Value]:
        at, of = e.at(partial, i, 64), e.at(other, i, 64)
        for part in parts(e):
            e.store(joined(at, of, HEADER + part, e.F), at, HEADER + part)
        return []

    total = b.fmul(e.spread(F32, partial, 4), old_factor)
    total = e.fma(e.spread(F32, other, 4), new_factor, total)
    first = const(I32, 0)
    e.store(b.extract_element(total, first), partial, 4)
    e.store(b.extract_element(top, first), partial)
    e.loop(b.lshr(head_dim, const(I64, 4)), [], body)


def finish(e: Emit, partial: Value, out: Value, head_dim: Value) -> None:
    """The mean of values: zeros where nothing was seen, and never a negative zero."""
    b = e.b
    total = e.load(F32, partial, 4)
    empty = b.fcmp_ordered("==", total, const(F32, 0.0))
    inverse = e.splat(b.select(empty, const(F32, 0.0), b.fdiv(const(F32, 1.0), total)))

    def body(i: Value, _: list[Value]) -> list[Value]:
        at, to = e.at(partial, i, 64), e.at(out, i, 64)
        for part in parts(e):
            mean = b.fmul(e.load(e.F, at, HEADER + part), inverse)
            e.store(b.fadd(mean, const(e.F, 0.0)), to, part)
        return []

    e.loop(b.lshr(head_dim, const(I64, 4)), [], body)
