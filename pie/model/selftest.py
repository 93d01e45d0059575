"""Does a row keep its bits on this machine, whatever is computed beside it?

Matrix libraries choose kernels by shape, processor and version, so what `blocks` and
`attention` rely on is looked at once per start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from pie.batch import Batch, InitializeAdapter, Ints, ints

from .config import PAGE_SIZE

ROWS = 75
_PIECES = (1, 8, 11, 2, 30, 23)
PAGES = 2 * -(-ROWS // PAGE_SIZE)
"""Pages that the self-test writes."""

ADAPTER = InitializeAdapter(
    slot=0, rank=1, alpha=1.0, population_size=1, mu_fraction=1.0, initial_sigma=0.05
)
"""The adapter whose noise all rows of the self-test use."""


def pieces_agree(logits: Callable[[Batch, Ints], Tensor], vocabulary: int) -> bool:
    """Compare a prefill in one step with the same in pieces, and with single rows side by side."""
    tokens = [7919 * i % vocabulary for i in range(ROWS)]
    half = PAGES // 2
    whole = _run(logits, tokens, [(0, ROWS)], range(half))
    start = 0
    for piece in _PIECES:
        part = _run(logits, tokens, [(start, start + piece)], range(half, PAGES))
        if not torch.equal(part, whole[start : start + piece]):
            return False
        start += piece
    for step in (37, 9, 5):
        rows = range(0, ROWS, step)
        single = _run(logits, tokens, [(row, row + 1) for row in rows], range(half))
        if not torch.equal(single, whole[list(rows)]):
            return False
    return True


def _run(
    logits: Callable[[Batch, Ints], Tensor],
    tokens: Sequence[int],
    spans: Sequence[tuple[int, int]],
    pages: range,
) -> Tensor:
    """Logits of all rows of passes over `spans` of one sequence."""
    rows = [row for start, end in spans for row in range(start, end)]
    starts = [sum(end - start for start, end in spans[:i]) for i in range(len(spans) + 1)]
    batch = Batch(
        tokens=ints([tokens[row] for row in rows]),
        positions=ints(rows),
        row_starts=ints(starts),
        pages=ints(list(pages) * len(spans)),
        page_starts=ints(range(0, len(pages) * len(spans) + 1, len(pages))),
        lengths=ints([end for _, end in spans]),
        adapters=ints([ADAPTER.slot] * len(spans)),
        noisy=np.ones(len(spans), dtype=np.bool_),
        noise_seeds=np.zeros(len(spans), dtype=np.int64),
    )
    return logits(batch, ints(range(len(rows))))
