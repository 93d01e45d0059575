"""A batch as the two pieces of memory that `pie.kernels.cpu.prepare` reads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pie.batch import Batch, Floats, Ints
from pie.kernels.cpu.prepare import REALS, WORDS

from ..config import PAGE_SIZE

_OTHER_NAMES = {"table": "pages", "cleared_slots": "cleared_embeddings"}
_WORD_FIELDS = [_OTHER_NAMES.get(name, name) for name in WORDS]
_NO_BITS = np.zeros((1, 1), np.uint16)


def words_of(batch: Batch) -> Ints:
    """Its whole numbers, in the order of `prepare.WORDS`."""
    return np.concatenate([getattr(batch, name) for name in _WORD_FIELDS])


def reals_of(batch: Batch) -> Floats:
    """Its other numbers, in the order of `prepare.REALS`."""
    return np.concatenate([getattr(batch, name) for name in REALS])


def sizes_of(batch: Batch) -> tuple[int, int]:
    """How many words and reals a batch has whose arrays fit each other."""
    sampled, ranked = len(batch.sampled_rows), len(batch.ranked_rows)
    pairs = batch.rows + batch.passes + len(batch.embedding_rows) + len(batch.stored_rows)
    pairs += len(batch.masked_rows) + sampled + ranked
    pairs += len(batch.copy_sources)
    words = 2 * pairs + batch.passes + 3 + len(batch.pages) + len(batch.mask_runs)
    words += len(batch.cleared_pages) + len(batch.cleared_embeddings)
    return words, 4 * sampled + ranked


def room_for_masks(batch: Batch) -> NDArray[np.uint16]:
    """Room for the bits of the masked rows, 16 slots each: [masked rows, pages]."""
    count = len(batch.masked_rows)
    if not count:
        return _NO_BITS
    return np.zeros((count, int(batch.lengths.max()) // PAGE_SIZE + 1), np.uint16)
