"""What is wrong with a batch that compiled code has refused: a bug of ours, said loudly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pie.batch import Batch

from ..config import PAGE_SIZE


def complaint(batch: Batch, *, pages: int, vocabulary: int, slots: int) -> str:
    """One line with the values and the limit."""
    within = (
        ("page", batch.pages, pages),
        ("cleared page", batch.cleared_pages, pages),
        ("copied page", batch.copy_sources, pages),
        ("copy's page", batch.copy_targets, pages),
        ("token", batch.tokens, vocabulary),
        ("embedding slot", batch.embedding_slots, slots),
        ("embedding slot", batch.stored_slots, slots),
        ("cleared embedding slot", batch.cleared_embeddings, slots),
        *(
            (name, getattr(batch, name), batch.rows)
            for name in ("sampled_rows", "ranked_rows", "stored_rows", "embedding_rows")
        ),
        ("masked_rows", batch.masked_rows, batch.rows),
    )
    for what, values, limit in within:
        lowest = -1 if what == "token" else 0
        if len(values) and (values.min() < lowest or values.max() >= limit):
            return f"{what} {values.min()} .. {values.max()} of {limit}"
    if (np.delete(batch.tokens, batch.embedding_rows) < 0).any():
        return "a row has neither a token nor an embedding slot"
    for i, length in enumerate(batch.lengths):
        rows, room = _size(batch.row_starts, i), _size(batch.page_starts, i) * PAGE_SIZE
        if not 1 <= rows <= length <= room:
            return f"pass {i} of length {length} does not fit its {rows} rows or {room} slots"
    return "its arrays do not fit each other, or runs of a mask go on beyond the row's slots"


def _size(starts: NDArray[np.int32], i: int) -> int:
    return int(starts[i + 1] - starts[i])
