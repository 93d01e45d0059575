"""One segment of attention: which pages are seen, their scores, weights, and weighted values.

Two passes over the pages that some query of the call sees: all scores, then weights and the
weighted sum of values. All addresses and sizes are bytes; nothing is checked.
"""

from __future__ import annotations

from .attention_emit import (
    AHEAD,
    ENTRY,
    FIRST,
    LIMIT,
    MASK,
    PARTIAL,
    QUERY,
    SEGMENT,
    STRIDE,
)
from .emit import LOG2_E
from .jit import compiled, staged
from .lines import Form
from .memory import read16, read32, read64, write16, write64
from .native import cap, clear, hide, mix_pages, score_pages, settle, weigh, weigh_scaled
from .weights import QUERIES

_ADDRESSES = QUERIES * ENTRY
_BITS = _ADDRESSES + 8 * (SEGMENT + AHEAD)
_SCORES = 64 * -(-(_BITS + 2 * QUERIES * SEGMENT) // 64)
PARTIALS = _SCORES + QUERIES * STRIDE
"""Where in a thread's scratch things are: entries of the queries, addresses of the pages seen,
what each query sees of them (uint16[SEGMENT][QUERIES]), scores, and two partials of each query."""

_ALL = 0xFFFF
_INT8 = int(Form.INT8)


@compiled
def _visible(entry: int, page: int) -> int:
    """What the query of `entry` sees of logical page `page`: 16 bits, the lowest of slot 0."""
    high = read64(entry + LIMIT) - 16 * page
    low = read64(entry + FIRST) - 16 * page
    if high <= 0 or low >= 16:
        return 0
    bits = _ALL if high >= 16 else (1 << high) - 1
    if low > 0:
        bits &= -1 << low
    mask = read64(entry + MASK)
    return bits & read16(mask + 2 * page) if mask != 0 else bits


@compiled
def _choose(count: int, table: int, base: int, page_bytes: int, segment: int, scratch: int) -> int:
    """List the pages of a segment that some query sees, and what each sees; how many they are."""
    begin, end = 1 << 40, 0
    all_begin, all_end = 0, 1 << 40  # what every query sees all of
    for q in range(count):
        entry = scratch + q * ENTRY
        limit, first = read64(entry + LIMIT), read64(entry + FIRST)
        begin, end = min(begin, first >> 4), max(end, (limit + 15) >> 4)
        all_begin, all_end = max(all_begin, (first + 15) >> 4), min(all_end, limit >> 4)
        if read64(entry + MASK) != 0:
            all_end = 0
    pages = 0
    for page in range(max(begin, segment * SEGMENT), min(end, (segment + 1) * SEGMENT)):
        bits = scratch + _BITS + 2 * QUERIES * pages
        if all_begin <= page < all_end:
            seen = _ALL
            write64(bits, -1)
        else:
            seen = 0
            for q in range(count):
                own = _visible(scratch + q * ENTRY, page)
                write16(bits + 2 * q, own)
                seen |= own
        if seen != 0:
            address = base + read32(table + 4 * page) * page_bytes
            write64(scratch + _ADDRESSES + 8 * pages, address)
            pages += 1
    return pages


@compiled
def _ask_for_values(pages: int, keys: int, addresses: int) -> None:
    """Let the keys of the last pages be followed by the values of the first."""
    for i in range(AHEAD):
        values = read64(addresses + 8 * min(i, pages - 1)) + keys
        write64(addresses + 8 * (pages + i), values)


@staged
def compute_segment(
    count: int,
    dim: int,
    table: int,
    base: int,
    page_bytes: int,
    soft_cap: float,
    segment: int,
    scratch: int,
    form: int,
) -> None:
    """The partials of a segment for the `count` queries that the entries in `scratch` tell."""
    pages = _choose(count, table, base, page_bytes, segment, scratch)
    if pages == 0:
        for q in range(count):
            clear(read64(scratch + q * ENTRY + PARTIAL), dim)
        return
    addresses, all_scores = scratch + _ADDRESSES, scratch + _SCORES
    _ask_for_values(pages, (16 if form == _INT8 else 32) * dim, addresses)
    score_pages(form, count, addresses, pages, scratch, all_scores, dim)
    for q in range(count):
        scores, partial = all_scores + q * STRIDE, read64(scratch + q * ENTRY + PARTIAL)
        if soft_cap > 0.0:
            cap(scores, pages, soft_cap * LOG2_E)
        hide(scores, pages, scratch + _BITS + 2 * q)
        if form == _INT8:
            weigh_scaled(scores, pages, partial, dim, addresses)
        else:
            weigh(scores, pages, partial, dim)
    mix_pages(form, count, addresses, pages, scratch, all_scores, dim)
    if form == _INT8:
        for q in range(count):
            settle(read64(scratch + q * ENTRY + PARTIAL), dim)


@compiled
def enter_query(entry: int, query: int, limit: int, window: int, mask: int, partial: int) -> None:
    """Note a query that sees the last `window` (0: all) of the slots before `limit`."""
    write64(entry + QUERY, query)
    write64(entry + LIMIT, limit)
    write64(entry + FIRST, max(limit - window, 0) if window > 0 else 0)
    write64(entry + MASK, mask)
    write64(entry + PARTIAL, partial)
