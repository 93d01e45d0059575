"""A model whose next token can be computed by hand, fast enough for thousands of passes a step.

    next = "abc...z"[sum of (token + 1) * (position + 1) over the slots that a row sees, mod 26]

After the tokens of "ab", 97 and 98 at positions 0 and 1, the sum is 98 * 1 + 99 * 2 = 296 and the
next token is `k`. Like attention the sum does not care in which slot something is but at which
position, and a wrong page, mask, position or length changes it. A slot that was never written
counts as 0; a row whose input is an embedding slot adds what that slot holds in place of its token.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pie.batch import AdapterCommand, Batch, BatchResult, Floats, Ints
from pie.errors import PassFailed

from .letters import FIRST_LETTER, LETTERS, hidden_slots, letter_info, outputs_of

Sums = NDArray[np.int64]

_EMBEDDED = 1 << 20
"""What embedding slots hold is below this, so that no sum can overflow."""


class ArithmeticRunner:
    """A `ModelRunner` that answers at once.

    A step takes a few numpy operations over its rows and the page numbers of its passes, and one
    more over its length for each masked row. It takes no adapters.
    """

    def __init__(
        self,
        name: str = "simulated",
        *,
        pages: int = 4096,
        page_size: int = 16,
        embedding_slots: int = 128,
        context_length: int = 8192,
    ) -> None:
        self.info = letter_info(
            name,
            pages=pages,
            page_size=page_size,
            context_length=context_length,
            embedding_slots=embedding_slots,
            description="the sum of (token + 1) * (position + 1) over the visible slots, mod 26",
            fingerprint=lambda: f"arithmetic, pages of {page_size}",
        )
        self._slots = np.zeros((pages, page_size), dtype=np.int64)
        self._totals = np.zeros(pages, dtype=np.int64)
        self._embeddings = np.zeros(embedding_slots, dtype=np.int64)

    def run(self, batch: Batch) -> BatchResult:
        self._put(batch.cleared_pages, 0)
        self._embeddings[batch.cleared_embeddings] = 0
        self._put(batch.copy_targets, self._slots[batch.copy_sources])
        sums = self._sums(batch)
        self._embeddings[batch.stored_slots] = sums[batch.stored_rows] % _EMBEDDED
        return outputs_of(batch, FIRST_LETTER + sums % LETTERS)

    def read_pages(self, pages: Ints, /) -> NDArray[np.uint8]:
        return np.ascontiguousarray(self._slots[pages]).view(np.uint8)

    def write_pages(self, pages: Ints, contents: NDArray[np.uint8], /) -> None:
        self._put(pages, np.ascontiguousarray(contents).view(np.int64))

    def read_embeddings(self, slots: Ints, /) -> Floats:
        """One number per slot: the sum that it holds, mod 2^20."""
        return self._embeddings[slots].astype(np.float32)[:, None]

    def adapt(self, command: AdapterCommand, /) -> bytes:
        raise PassFailed("the arithmetic model takes no adapters")

    def close(self) -> None:
        """Nothing to release."""

    def _put(self, pages: Ints, slots: Sums | int) -> None:
        self._slots[pages] = slots
        self._totals[pages] = self._slots[pages].sum(axis=1)

    def _sums(self, batch: Batch) -> Sums:
        """Write all rows, then [rows] what each sees."""
        rows = np.diff(batch.row_starts)
        owner = np.repeat(np.arange(batch.passes), rows)
        slot = np.arange(batch.rows) + np.repeat(batch.lengths - batch.row_starts[1:], rows)
        entry, offset = np.divmod(slot, self.info.page_size)
        entry += batch.page_starts[owner]
        page = batch.pages[entry]
        values = batch.tokens.astype(np.int64)
        values[batch.embedding_rows] = self._embeddings[batch.embedding_slots]
        self._slots[page, offset] = (values + 1) * (batch.positions.astype(np.int64) + 1)
        written = np.unique(page)
        self._totals[written] = self._slots[written].sum(axis=1)

        before = np.concatenate(([0], np.cumsum(self._totals[batch.pages])))
        full = before[entry] - before[batch.page_starts[owner]]
        seen = np.arange(self.info.page_size) <= offset[:, None]
        sums: Sums = full + np.where(seen, self._slots[page], 0).sum(axis=1)
        for row, hidden in hidden_slots(batch).items():
            pages = batch.pages[batch.page_starts[owner[row]] + hidden // self.info.page_size]
            sums[row] -= self._slots[pages, hidden % self.info.page_size].sum()
        return sums
