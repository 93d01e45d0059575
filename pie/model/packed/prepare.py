"""From a batch to the arrays that a packed step reads. NumPy alone, no loop over rows."""

from __future__ import annotations

from typing import TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.batch import Batch, Ints
from pie.kernels.cpu.plan import REQUEST, TASK

from ..config import PAGE_SIZE

Longs: TypeAlias = NDArray[np.int64]
Records: TypeAlias = NDArray[np.void]

TASK_ROWS = 16
"""Most rows of one pass that one item of attention computes."""


@attrs.frozen(eq=False)
class Rows:
    """Where the rows of a batch write, and how attention is cut into tasks."""

    pages: Ints
    """[rows] physical page of each row's slot."""
    slots: Ints
    """[rows] the slot in it."""
    tasks: Records
    masks: Longs
    """[rows] address of each row's bits, or 0."""
    bits: NDArray[np.uint16]
    """[masked rows, pages] bit i of a page: slot i is visible."""


def rows_of(batch: Batch) -> Rows:
    """Lay out the rows; `batch.pages` must stay where it is while the step runs."""
    starts = batch.row_starts.astype(np.int64)
    counts = np.diff(starts)
    logical = np.arange(batch.rows) + np.repeat(batch.lengths - starts[1:], counts)
    entry = np.repeat(batch.page_starts[:-1], counts) + logical // PAGE_SIZE
    bits = mask_bits(batch)
    masks = np.zeros(batch.rows, np.int64)
    if len(bits):
        stride = bits.shape[1] * bits.itemsize
        masks[batch.masked_rows] = bits.ctypes.data + stride * np.arange(len(bits))
    pages, slots = batch.pages[entry], (logical % PAGE_SIZE).astype(np.int32)
    return Rows(pages, slots, _tasks(batch, starts, counts), masks, bits)


def _tasks(batch: Batch, starts: Longs, counts: Longs) -> Records:
    """Up to TASK_ROWS rows each, the longest first, so that threads end at about the same time."""
    parts = -(-counts // TASK_ROWS)
    owner = np.repeat(np.arange(batch.passes), parts)
    first = starts[owner] + TASK_ROWS * _count_within(parts)
    tasks = np.zeros(len(owner), TASK)
    tasks["first_row"] = first
    tasks["rows"] = np.minimum(first + TASK_ROWS, starts[owner + 1]) - first
    tasks["pages"] = batch.pages.ctypes.data + 4 * batch.page_starts[owner].astype(np.int64)
    tasks["limit"] = batch.lengths[owner] - (starts[owner + 1] - first) + 1
    order = np.argsort(-tasks["limit"] * tasks["rows"], kind="stable")
    return tasks[order]


def _count_within(counts: Longs) -> Longs:
    """0 .. n-1 for each n of `counts`, one after the other."""
    ends = np.cumsum(counts)
    return np.arange(counts.sum()) - np.repeat(ends - counts, counts)


def mask_bits(batch: Batch) -> NDArray[np.uint16]:
    """The masked rows' visible slots as 16 bits a page: [masked rows, pages].

    Runs alternate attend, hide, attend, ... and cover the visible slots of their row.
    """
    count = len(batch.masked_rows)
    if not count:
        return np.zeros((0, 0), np.uint16)
    starts, runs = batch.mask_starts.astype(np.int64), batch.mask_runs.astype(np.int64)
    shown = _count_within(np.diff(starts)) % 2 == 0
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(runs)])[starts]
    lengths = np.diff(ends)
    width = -(-int(lengths.max()) // PAGE_SIZE) * PAGE_SIZE
    visible = np.zeros((count, width), np.bool_)
    visible[np.repeat(np.arange(count), lengths), _count_within(lengths)] = np.repeat(shown, runs)
    return np.packbits(visible, axis=1, bitorder="little").view(np.uint16)


@attrs.frozen(eq=False)
class Asked:
    """The outputs of a batch, grouped by the rows they are of."""

    rows: Ints
    """[wanted] the rows whose logits are needed, ascending."""
    requests: Records
    starts: Ints
    """[wanted + 1] first request of each of them."""
    row_of_sampled: Longs
    """[sampled] index in `rows`."""
    row_of_ranked: Longs
    ranked_starts: Ints
    """[ranked + 1] first entry of each distribution."""


def asked_of(batch: Batch, vocabulary: int) -> Asked:
    """The requests of `batch`, each distribution with at most `vocabulary` entries."""
    both = np.concatenate([batch.sampled_rows, batch.ranked_rows])
    rows, where = np.unique(both, return_inverse=True)
    sampled = len(batch.sampled_rows)
    counts = np.minimum(batch.ranked_k, vocabulary)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    requests = np.zeros(len(both), REQUEST)
    requests["kind"][sampled:] = 1
    requests["place"][:sampled] = np.arange(sampled)
    requests["place"][sampled:] = starts[:-1]
    requests["top_k"] = np.concatenate([batch.top_k, counts])
    temperature = np.concatenate([batch.temperature, batch.ranked_temperature])
    requests["temperature"] = temperature
    for name in ("top_p", "min_p", "uniform"):
        requests[name][:sampled] = getattr(batch, name)
    order = np.argsort(where, kind="stable")
    first = np.searchsorted(where[order], np.arange(len(rows) + 1))
    return Asked(
        rows=rows.astype(np.int32),
        requests=requests[order],
        starts=first.astype(np.int32),
        row_of_sampled=where[:sampled],
        row_of_ranked=where[sampled:],
        ranked_starts=starts.astype(np.int32),
    )


def check(batch: Batch, *, pages: int, vocabulary: int, slots: int) -> None:
    """ValueError for what compiled code would follow out of its memory: a bug of ours."""
    _within("page", batch.pages, pages)
    _within("token", np.maximum(batch.tokens, 0), vocabulary)
    _within("embedding slot", batch.embedding_slots, slots)
    _within("embedding slot", batch.stored_slots, slots)
    for name in ("sampled_rows", "ranked_rows", "stored_rows", "embedding_rows", "masked_rows"):
        _within(name, getattr(batch, name), batch.rows)
    counts = np.diff(batch.row_starts)
    room = np.diff(batch.page_starts) * PAGE_SIZE
    if len(batch.positions) != batch.rows or batch.row_starts[-1] != batch.rows:
        raise ValueError(f"rows: {batch.row_starts[-1]} in passes, {batch.rows} tokens")
    if (counts < 1).any() or (batch.lengths < counts).any() or (batch.lengths > room).any():
        raise ValueError("a pass has no rows, or its length does not fit its rows or pages")
    if (np.delete(batch.tokens, batch.embedding_rows) < 0).any():
        raise ValueError("a row has neither a token nor an embedding slot")


def _within(what: str, values: NDArray[np.int32], limit: int) -> None:
    if len(values) and (values.min() < 0 or values.max() >= limit):
        raise ValueError(f"{what} {values.min()} .. {values.max()} of {limit}")
