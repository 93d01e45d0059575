"""A model without arithmetic, and an observer that keeps only the batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import numpy as np
import trio
from numpy.typing import NDArray

from pie.actors.decodings import PendingDecoding
from pie.actors.ledger import Ledger
from pie.actors.passes import Pending
from pie.actors.planner import Chunk
from pie.batch import AdapterCommand, Batch, BatchResult, Floats, Ints, ModelInfo, ints
from pie.errors import PieError
from pie.messages import SchedulerMessage, SubmitDecoding
from pie.trace.reading import BatchFacts, ModelFacts

from ..adapters import HashAdapters
from ..letters import LetterTokenizer


def blank_info(facts: ModelFacts, pages: int | None = None) -> ModelInfo:
    """A model of these sizes; with `pages`, of so many KV pages."""
    return ModelInfo(
        name=facts.name,
        tokenizer=LetterTokenizer(),
        vocabulary=facts.vocabulary,
        context_length=facts.context_length,
        page_size=facts.page_size,
        pages=facts.pages if pages is None else pages,
        embedding_slots=facts.embedding_slots,
        fingerprint=lambda: "no arithmetic",
        adapters=HashAdapters(facts.adapter_slots) if facts.adapter_slots else None,
    )


@attrs.frozen
class BlankRunner:
    """A `ModelRunner` whose every answer is zero."""

    info: ModelInfo

    def run(self, batch: Batch) -> BatchResult:
        sampled, ranked = len(batch.sampled_rows), len(batch.ranked_rows)
        return BatchResult(
            tokens=np.zeros(sampled, dtype=np.int32),
            sampled_finite=np.ones(sampled, dtype=np.bool_),
            ranked_starts=ints(range(ranked + 1)),
            ranked_ids=np.zeros(ranked, dtype=np.int32),
            ranked_probabilities=np.ones(ranked, dtype=np.float32),
            ranked_finite=np.ones(ranked, dtype=np.bool_),
        )

    def read_pages(self, pages: Ints, /) -> NDArray[np.uint8]:
        return np.zeros((len(pages), 1), dtype=np.uint8)

    def write_pages(self, pages: Ints, contents: NDArray[np.uint8], /) -> None:
        """There is nothing to keep."""

    def read_embeddings(self, slots: Ints, /) -> Floats:
        return np.zeros((len(slots), 1), dtype=np.float32)

    def adapt(self, command: AdapterCommand, /) -> bytes:
        return b""

    def close(self) -> None:
        """Nothing to release."""


class BatchWatch:
    """An `Observer` that appends the batches of one model to a list, and tells of decodings."""

    def __init__(
        self, model: int, batches: list[BatchFacts], proceeded: Callable[[SubmitDecoding], None]
    ) -> None:
        self._model, self._batches, self._proceeded = model, batches, proceeded
        self._began = 0.0
        self._batch: Batch | None = None

    def began(self, step: Sequence[Chunk], batch: Batch, /) -> None:
        self._began, self._batch = trio.current_time(), batch

    def followed(self, step: Sequence[Chunk], batch: Batch, /) -> None:
        self.began(step, batch)

    def ended(self, step: Sequence[Chunk], lost: PieError | None, /) -> None:
        batch = self._batch
        assert batch is not None, "a batch ends after it began"
        seconds = trio.current_time() - self._began
        slots = int(batch.lengths.sum())
        self._batches.append(
            BatchFacts(
                self._model, self._began, seconds, batch.rows, len(step), slots, lost is not None
            )
        )

    def opened(self, ledger: Ledger, /) -> None: ...
    def took(self, message: SchedulerMessage, /) -> None: ...
    def submitted(self, work: Pending, /) -> None: ...
    def proceeded(self, work: PendingDecoding, /) -> None:
        self._proceeded(work.token)

    def finished(self, work: Pending, /) -> None: ...
    def moved_out(self, numbers: Sequence[int], /) -> None: ...
    def moved_back(self, numbers: Sequence[int], /) -> None: ...
