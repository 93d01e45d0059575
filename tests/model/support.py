"""Batches for model tests, written as passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from pie.batch import Batch, floats, ints


@attrs.frozen(kw_only=True)
class Pass:
    """One pass of a batch; `tokens` -1 - slot takes an embedding slot."""

    tokens: Sequence[int]
    pages: Sequence[int]
    length: int | None = None
    """KV length after the pass; None: the tokens start the sequence."""
    positions: Sequence[int] | None = None
    masks: Mapping[int, Sequence[int]] = attrs.field(factory=dict)
    """Runs (attend, hide, ...) by row of the pass."""

    @property
    def end(self) -> int:
        return len(self.tokens) if self.length is None else self.length


def starts(counts: Sequence[int]) -> list[int]:
    return [0, *np.cumsum(counts).tolist()]


def make_batch(passes: Sequence[Pass], **more: Any) -> Batch:
    """A batch of `passes`; `more` are further fields of Batch, with rows of the whole batch."""
    first = starts([len(p.tokens) for p in passes])
    inputs = [token for p in passes for token in p.tokens]
    positions = [
        position
        for p in passes
        for position in (p.positions or range(p.end - len(p.tokens), p.end))
    ]
    masks = [
        (begin + row, runs)
        for begin, p in zip(first, passes, strict=False)
        for row, runs in sorted(p.masks.items())
    ]
    slots = [(row, -1 - token) for row, token in enumerate(inputs) if token < 0]
    return Batch(
        tokens=ints([max(token, -1) for token in inputs]),
        positions=ints(positions),
        row_starts=ints(first),
        pages=ints([page for p in passes for page in p.pages]),
        page_starts=ints(starts([len(p.pages) for p in passes])),
        lengths=ints([p.end for p in passes]),
        embedding_rows=ints([row for row, _ in slots]),
        embedding_slots=ints([slot for _, slot in slots]),
        masked_rows=ints([row for row, _ in masks]),
        mask_runs=ints([run for _, runs in masks for run in runs]),
        mask_starts=ints(starts([len(runs) for _, runs in masks])),
        **more,
    )


def greedy(rows: Sequence[int]) -> dict[str, Any]:
    """Fields that ask for the most probable token of `rows`."""
    return sampled(rows, temperature=0.0)


def sampled(
    rows: Sequence[int],
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    uniform: float = 0.5,
) -> dict[str, Any]:
    """Fields that ask for a token of each of `rows` with the same settings."""
    count = len(rows)
    return {
        "sampled_rows": ints(rows),
        "temperature": floats([temperature] * count),
        "top_k": ints([top_k] * count),
        "top_p": floats([top_p] * count),
        "min_p": floats([min_p] * count),
        "uniform": floats([uniform] * count),
    }


def ranked(rows: Sequence[int], *, k: int, temperature: float = 1.0) -> dict[str, Any]:
    """Fields that ask for the distribution of each of `rows`."""
    return {
        "ranked_rows": ints(rows),
        "ranked_temperature": floats([temperature] * len(rows)),
        "ranked_k": ints([k] * len(rows)),
    }
