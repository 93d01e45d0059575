"""A model whose next token is a hash of what a row can see.

Two "layers" of 64-bit integers stand in for K and V. A slot of the first holds a hash of its
token and position; a row's state is the sum of the visible slots; the second layer holds hashes
of those states, and the next token is a hash of their visible sum. Like attention it does not
care about slot order but about positions, and a wrong page, mask, order or length changes it.
"""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.batch import (
    AdapterCommand,
    Batch,
    BatchResult,
    Floats,
    Ints,
)

from .adapters import HashAdapters
from .letters import FIRST_LETTER, LETTERS, hidden_slots, letter_info, outputs_of

Hashes = NDArray[np.uint64]


def mixed(values: Hashes) -> Hashes:
    """The finaliser of SplitMix64: every input bit reaches every output bit."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class HashModel:
    """The arithmetic; a `ModelRunner` that answers at once."""

    def __init__(
        self,
        name: str = "simulated",
        *,
        pages: int = 4096,
        page_size: int = 16,
        embedding_slots: int = 128,
        context_length: int = 8192,
        adapter_slots: int = 8,
        multi_steps: int = 1,
    ) -> None:
        """`multi_steps` is what its device makes in one call (`SimulatedGpu` can)."""
        self._adapters = HashAdapters(adapter_slots)
        self.info = letter_info(
            name,
            pages=pages,
            page_size=page_size,
            context_length=context_length,
            embedding_slots=embedding_slots,
            description="a hash of the visible slots",
            fingerprint=lambda: f"hash model, pages of {page_size}",
        )
        self.info = attrs.evolve(self.info, multi_steps=multi_steps)
        if adapter_slots:
            traits = (*self.info.traits, "adapter")
            self.info = attrs.evolve(self.info, adapters=self._adapters, traits=traits)
        self._kv = np.zeros((2, pages, page_size), dtype=np.uint64)
        self._embeddings = np.zeros(embedding_slots, dtype=np.uint64)

    def run(self, batch: Batch) -> BatchResult:
        self._kv[:, batch.cleared_pages] = 0
        self._embeddings[batch.cleared_embeddings] = 0
        self._kv[:, batch.copy_targets] = self._kv[:, batch.copy_sources]
        values = batch.tokens.astype(np.uint64)
        values[batch.embedding_rows] = self._embeddings[batch.embedding_slots]
        content = mixed(mixed(values) + batch.positions.astype(np.uint64))
        adapters = self._adapters.numbers(batch)
        content = np.where(adapters == 0, content, mixed(content ^ adapters))
        for layer in self._kv:
            content = self._attend(layer, content, batch)
        self._embeddings[batch.stored_slots] = content[batch.stored_rows]
        best = FIRST_LETTER + (content % np.uint64(LETTERS)).astype(np.int64)
        return outputs_of(batch, best)

    def read_pages(self, pages: Ints, /) -> NDArray[np.uint8]:
        slots = np.ascontiguousarray(self._kv[:, pages].swapaxes(0, 1))
        return slots.reshape(len(pages), 2 * self.info.page_size).view(np.uint8)

    def write_pages(self, pages: Ints, contents: NDArray[np.uint8], /) -> None:
        slots = np.ascontiguousarray(contents).view(np.uint64)
        self._kv[:, pages] = slots.reshape(len(pages), 2, self.info.page_size).swapaxes(0, 1)

    def read_embeddings(self, slots: Ints, /) -> Floats:
        """One number per slot: the top bits of its hash."""
        return (self._embeddings[slots] >> np.uint64(40)).astype(np.float32)[:, None]

    def adapt(self, command: AdapterCommand, /) -> bytes:
        return self._adapters.adapt(command)

    def close(self) -> None:
        """Nothing to release."""

    def _attend(self, layer: Hashes, content: Hashes, batch: Batch) -> Hashes:
        """Write all rows of a layer, then let each row sum what it sees."""
        page_size = self.info.page_size
        flat = layer.reshape(-1)
        slots: list[Ints] = []
        bounds = zip(
            batch.row_starts[:-1],
            batch.row_starts[1:],
            batch.page_starts,
            batch.lengths,
            strict=False,
        )
        spans = [(int(a), int(b), int(p), int(n)) for a, b, p, n in bounds]
        for first, end, page, length in spans:
            logical = np.arange(length)
            physical = batch.pages[page + logical // page_size] * page_size + logical % page_size
            flat[physical[length - (end - first) :]] = content[first:end]
            slots.append(physical)
        hidden = hidden_slots(batch)
        states = np.zeros_like(content)
        for (first, end, _, length), physical in zip(spans, slots, strict=True):
            seen = np.cumsum(flat[physical], dtype=np.uint64)
            states[first:end] = seen[length - (end - first) :]
            for row in hidden.keys() & range(first, end):
                # As an array: a scalar that wraps around warns.
                states[row : row + 1] -= flat[physical[hidden[row]]].sum(dtype=np.uint64)
        return mixed(states)
