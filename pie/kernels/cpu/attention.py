"""Attention over paged K and V: the same bits, whoever computes which part of it.

A query's slots are cut into *segments* of SEGMENT pages from slot 0 on. Each gives a partial (see
`partials`), and partials are combined in ascending order. So the bits of a result do not depend on
which queries share a call, on the batch, on how a prompt was cut into passes, on the physical
numbers of pages, or on how many threads computed the segments.
"""

from __future__ import annotations

from .attention_emit import ENTRY, FIRST, PARTIAL, SEGMENT
from .jit import staged
from .memory import read64, write64
from .native import divide, join
from .segment import PARTIALS, compute_segment, enter_query
from .weights import HEADER, QUERIES


def scratch_bytes(head_dim: int) -> int:
    """Bytes that a thread needs for any of the functions here, best 64-byte aligned."""
    return PARTIALS + 2 * QUERIES * partial_bytes(head_dim)


def partial_bytes(head_dim: int) -> int:
    """Bytes of what one segment contributes to one query."""
    return HEADER + 4 * head_dim


def segments(limit: int) -> int:
    """Segments of a query that sees the slots before `limit`."""
    return (limit + 16 * SEGMENT - 1) // (16 * SEGMENT)


@staged
def attend_rows(
    queries: int,
    out: int,
    rows: int,
    heads: int,
    group: int,
    dim: int,
    limit: int,
    window: int,
    masks: int,
    table: int,
    base: int,
    page_bytes: int,
    soft_cap: float,
    scratch: int,
    form: int,
) -> None:
    """Attention of consecutive rows of a pass over one KV head.

    `queries`: of the first row and the first of the `group` heads that share the KV head; a row
    has `heads` of `query_bytes(dim)`. `out` likewise, of float32[dim]: the first row's first head.
    The first row sees the slots before `limit`, each following one more; `window` > 0: only the
    last so many. `masks`: 0, or the address of int64[rows]: 0, or the address of a row's
    uint16[pages], a bit for each slot (the lowest is the first), 1 where it is seen.
    `table`: of int32 page numbers in logical order; `base`: where page 0 has this layer and KV
    head. `soft_cap` > 0: c * tanh(score / c). `scratch` has `scratch_bytes(dim)` bytes. `form`: a
    `Form`, that of the queries and of the pages. A row that sees nothing gets zeros.
    """
    size, first_partial = partial_bytes(dim), scratch + PARTIALS
    total = rows * group
    row, head = 0, 0
    for start in range(0, total, QUERIES):
        count = min(QUERIES, total - start)
        first_row, first_head = row, head
        for q in range(count):
            place = row * heads + head
            mask = read64(masks + 8 * row) if masks != 0 else 0
            query, partial = queries + place * 4 * dim, first_partial + 2 * q * size
            enter_query(scratch + q * ENTRY, query, limit + row, window, mask, partial)
            last_row = row
            head += 1
            if head == group:
                row, head = row + 1, 0
        begin = read64(scratch + FIRST) // (16 * SEGMENT)
        end = segments(limit + last_row)
        compute_segment(count, dim, table, base, page_bytes, soft_cap, begin, scratch, form)
        for q in range(count):
            write64(scratch + q * ENTRY + PARTIAL, first_partial + (2 * q + 1) * size)
        for segment in range(begin + 1, end):
            compute_segment(count, dim, table, base, page_bytes, soft_cap, segment, scratch, form)
            for q in range(count):
                partial = first_partial + 2 * q * size
                join(partial, partial + size, dim)
        for q in range(count):
            place = first_row * heads + first_head
            divide(first_partial + 2 * q * size, out + place * 4 * dim, dim)
            first_head += 1
            if first_head == group:
                first_row, first_head = first_row + 1, 0


@staged
def attend_segment(
    queries: int,
    partials: int,
    group: int,
    dim: int,
    limit: int,
    window: int,
    mask: int,
    table: int,
    base: int,
    page_bytes: int,
    soft_cap: float,
    segment: int,
    scratch: int,
    form: int,
) -> None:
    """The partials of one segment of one row for the `group` heads that share a KV head.

    As `attend_rows`; `mask` is 0 or the row's. `partials`: of the first head and segment 0, in
    [group][segments(limit)] of `partial_bytes(dim)`.
    """
    size, every = partial_bytes(dim), segments(limit)
    for start in range(0, group, QUERIES):
        count = min(QUERIES, group - start)
        for q in range(count):
            partial = partials + ((start + q) * every + segment) * size
            query = queries + (start + q) * 4 * dim
            enter_query(scratch + q * ENTRY, query, limit, window, mask, partial)
        compute_segment(count, dim, table, base, page_bytes, soft_cap, segment, scratch, form)


@staged
def combine(partials: int, out: int, group: int, dim: int, limit: int) -> None:
    """Combine what `attend_segment` wrote for all segments of a row into float32[group][dim].

    The partials are used up.
    """
    size, count = partial_bytes(dim), segments(limit)
    for head in range(group):
        first = partials + head * count * size
        for segment in range(1, count):
            join(first, first + segment * size, dim)
        divide(first, out + head * 4 * dim, dim)
