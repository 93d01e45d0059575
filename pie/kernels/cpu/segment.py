"""One segment of attention: which pages are seen, their scores, weights, and weighted values.

Two passes over the pages that some query of the call sees: all scores, then weights and the
weighted sum of values. All addresses and sizes are bytes; nothing is checked.
"""

from __future__ import annotations

from . import attention_emit as emitted
from .attention_emit import (
    ENTRY,
    FIRST,
    LIMIT,
    MASK,
    PARTIAL,
    QUERIES,
    QUERY,
    SEGMENT,
    STRIDE,
)
from .emit import I16, I32, I64, Emit, Value, kernel
from .jit import compiled
from .pages import TARGET
from .partials import clear, finish, merge
from .rope import LOG2_E

_ADDRESSES = QUERIES * ENTRY
_BITS = _ADDRESSES + 8 * (SEGMENT + 1)
_SCORES = 64 * -(-(_BITS + 2 * QUERIES * SEGMENT) // 64)
PARTIALS = _SCORES + QUERIES * STRIDE
"""Where in a thread's scratch things are: entries of the queries, addresses of the pages seen,
what each query sees of them [QUERIES][SEGMENT] uint16, scores, and two partials of each query."""


def _get64(e: Emit, address: Value) -> Value:
    return e.load(I64, address)


def _get32(e: Emit, address: Value) -> Value:
    return e.b.sext(e.load(I32, address), I64)


def _get16(e: Emit, address: Value) -> Value:
    return e.b.zext(e.load(I16, address), I64)


def _set64(e: Emit, address: Value, value: Value) -> None:
    e.store(value, address)


def _set16(e: Emit, address: Value, value: Value) -> None:
    e.store(e.b.trunc(value, I16), address)


def _whole() -> object:
    from numba.core import types

    return types.int64


read64, _read32, _read16 = (kernel(TARGET, f, _whole()) for f in (_get64, _get32, _get16))
write64, _write16 = kernel(TARGET, _set64), kernel(TARGET, _set16)
_nothing, join, divide = (kernel(TARGET, f) for f in (clear, merge, finish))
_hide, _cap, _weigh = (kernel(TARGET, f) for f in (emitted.hide, emitted.cap, emitted.weigh))
_score1, _score2, _score3, _score4 = (kernel(TARGET, emitted.score(n)) for n in (1, 2, 3, 4))
_mix1, _mix2, _mix3, _mix4 = (kernel(TARGET, emitted.mix(n)) for n in (1, 2, 3, 4))


@compiled
def _visible(entry: int, page: int) -> int:
    """What the query of `entry` sees of logical page `page`: 16 bits, the lowest of slot 0."""
    high = read64(entry + LIMIT) - 16 * page
    low = read64(entry + FIRST) - 16 * page
    if high <= 0 or low >= 16:
        return 0
    bits = 0xFFFF if high >= 16 else (1 << high) - 1
    if low > 0:
        bits &= -1 << low
    mask = read64(entry + MASK)
    return bits & _read16(mask + 2 * page) if mask != 0 else bits


@compiled
def _choose(count: int, table: int, base: int, page_bytes: int, segment: int, scratch: int) -> int:
    """List the pages of a segment that some query sees, and what each sees; how many they are."""
    end, begin = 0, 1 << 40
    for q in range(count):
        end = max(end, (read64(scratch + q * ENTRY + LIMIT) + 15) >> 4)
        begin = min(begin, read64(scratch + q * ENTRY + FIRST) >> 4)
    pages = 0
    for page in range(max(begin, segment * SEGMENT), min(end, (segment + 1) * SEGMENT)):
        seen = 0
        for q in range(count):
            bits = _visible(scratch + q * ENTRY, page)
            _write16(scratch + _BITS + 2 * (q * SEGMENT + pages), bits)
            seen |= bits
        if seen != 0:
            address = base + _read32(table + 4 * page) * page_bytes
            write64(scratch + _ADDRESSES + 8 * pages, address)
            pages += 1
    # The one after the last is asked for in vain.
    write64(scratch + _ADDRESSES + 8 * pages, base)
    return pages


@compiled
def _score(count: int, entries: int, keys: int, following: int, scores: int, dim: int) -> None:
    if count == 4:
        _score4(entries, keys, following, scores, dim)
    elif count == 3:
        _score3(entries, keys, following, scores, dim)
    elif count == 2:
        _score2(entries, keys, following, scores, dim)
    else:
        _score1(entries, keys, following, scores, dim)


@compiled
def _mix(count: int, entries: int, values: int, following: int, weights: int, dim: int) -> None:
    if count == 4:
        _mix4(entries, values, following, weights, dim)
    elif count == 3:
        _mix3(entries, values, following, weights, dim)
    elif count == 2:
        _mix2(entries, values, following, weights, dim)
    else:
        _mix1(entries, values, following, weights, dim)


@compiled
def compute_segment(
    count: int,
    dim: int,
    table: int,
    base: int,
    page_bytes: int,
    soft_cap: float,
    segment: int,
    scratch: int,
) -> None:
    """The partials of a segment for the `count` queries that the entries in `scratch` tell."""
    pages = _choose(count, table, base, page_bytes, segment, scratch)
    addresses, scores = scratch + _ADDRESSES, scratch + _SCORES
    for q in range(count):
        _nothing(read64(scratch + q * ENTRY + PARTIAL), dim)
    if pages == 0:
        return
    for i in range(pages):
        keys, following = read64(addresses + 8 * i), read64(addresses + 8 * i + 8)
        _score(count, scratch, keys, following, scores + 64 * i, dim)
    for q in range(count):
        own = scores + q * STRIDE
        if soft_cap > 0.0:
            _cap(own, pages, soft_cap * LOG2_E)
        for i in range(pages):
            bits = _read16(scratch + _BITS + 2 * (q * SEGMENT + i))
            if bits != 0xFFFF:
                _hide(own + 64 * i, bits)
        _weigh(own, pages, read64(scratch + q * ENTRY + PARTIAL))
    for i in range(pages):
        values = read64(addresses + 8 * i) + 32 * dim
        following = read64(addresses + 8 * i + 8) + 32 * dim
        _mix(count, scratch, values, following, scores + 64 * i, dim)


@compiled
def enter_query(entry: int, query: int, limit: int, window: int, mask: int, partial: int) -> None:
    """Note a query that sees the last `window` (0: all) of the slots before `limit`."""
    write64(entry + QUERY, query)
    write64(entry + LIMIT, limit)
    write64(entry + FIRST, max(limit - window, 0) if window > 0 else 0)
    write64(entry + MASK, mask)
    write64(entry + PARTIAL, partial)
