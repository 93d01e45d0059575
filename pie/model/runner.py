"""The torch runner: float32 on the CPU, the definition of a correct answer.

It is bit-invariant by construction (see `blocks` and `attention`), and tests itself on the
machine it runs on before it says so.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pie.batch import AdapterCommand, Batch, BatchResult, Floats, Ints, ModelInfo
from pie.errors import PassFailed

from . import selftest
from .adapter import AdapterBank, LoraSupport
from .blocks import aligned
from .config import PAGE_SIZE
from .kv import KVCache
from .llama import Llama
from .sampler import Draws, rank, sample

logger = logging.getLogger(__name__)


def _long(values: Ints) -> Tensor:
    return torch.from_numpy(values).long()


@contextmanager
def _memory_may_run_out() -> Iterator[None]:
    """Turn a failed allocation into the loss of this batch (contract F7)."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PassFailed(f"out of device memory: {error}") from error
    except RuntimeError as error:  # what torch's CPU allocator raises has no class of its own
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise PassFailed(f"out of memory: {error}") from error


@attrs.define(eq=False)
class TorchRunner:
    """A `pie.batch.ModelRunner`. One batch at a time, on any one thread."""

    info: ModelInfo
    _model: Llama
    _cache: KVCache
    _embeddings: Tensor
    """[slots, hidden] stored hidden states."""
    _adapters: AdapterBank
    invariant: bool
    """Whether this machine's library passed the self-test: a row's bits are then its own."""

    @staticmethod
    def build(model: Llama, info: ModelInfo, support: LoraSupport) -> TorchRunner:
        """A runner with the pages and slots that `info` and `support` announce, tested."""
        one_layer = model.of_layer(0)
        probe_cache = KVCache.build(one_layer.config, selftest.PAGES)
        probe_bank = AdapterBank(one_layer.config, attrs.evolve(support, slots=1))
        probe_bank.adapt(selftest.ADAPTER)
        probe = TorchRunner(
            info, one_layer, probe_cache, torch.zeros(0), probe_bank, invariant=False
        )
        invariant = selftest.pieces_agree(probe.logits, model.config.vocabulary)
        if not invariant:
            logger.warning(
                "model %s: this machine's matrix products depend on the number of rows; "
                "results are correct, but a pass may differ in its last bits from batch to batch",
                info.name,
            )
        cache = KVCache.build(model.config, info.pages)
        embeddings = torch.zeros(info.embedding_slots, model.config.hidden)
        bank = AdapterBank(model.config, support)
        return TorchRunner(info, model, cache, embeddings, bank, invariant=invariant)

    def run(self, batch: Batch) -> BatchResult:
        """Run one step; PassFailed if there is not enough memory for it."""
        with torch.inference_mode(), _memory_may_run_out():
            self._maintain(batch)
            if not batch.rows:
                return BatchResult()
            hidden = self._hidden(batch)
            self._store(batch, hidden)
            return self._answer(batch, hidden)

    def logits(self, batch: Batch, rows: Ints) -> Tensor:
        """Run a step for its logits [len(rows), vocabulary]; for tests and measurements."""
        with torch.inference_mode():
            self._maintain(batch)
            return self._logits(self._hidden(batch), rows)

    def read_pages(self, pages: Ints, /) -> NDArray[np.uint8]:
        return self._cache.contents(pages)

    def write_pages(self, pages: Ints, contents: NDArray[np.uint8], /) -> None:
        self._cache.put(pages, contents)

    def read_embeddings(self, slots: Ints, /) -> Floats:
        """The vectors in embedding slots: [slots, hidden]."""
        with torch.inference_mode():
            found: Floats = self._embeddings[_long(slots)].numpy()
        return found

    def adapt(self, command: AdapterCommand, /) -> bytes:
        with torch.inference_mode():
            return self._adapters.adapt(command)

    def close(self) -> None:
        """Nothing to give back that the garbage collector does not."""

    def _maintain(self, batch: Batch) -> None:
        if len(batch.cleared_pages):
            self._cache.clear(batch.cleared_pages)
        if len(batch.cleared_embeddings):
            self._embeddings.index_fill_(0, _long(batch.cleared_embeddings), 0.0)
        if len(batch.copy_sources):
            self._cache.copy(batch.copy_sources, batch.copy_targets)

    def _hidden(self, batch: Batch) -> Tensor:
        """Last hidden states of the rows, before the last norm: [aligned rows, hidden]."""
        tokens = _long(batch.tokens)
        x = self._model.embed(tokens.clamp(min=0))
        if len(batch.embedding_rows):
            x[_long(batch.embedding_rows)] = self._embeddings[_long(batch.embedding_slots)]
        x = F.pad(x, (0, 0, 0, aligned(batch.rows) - batch.rows))
        slots = torch.from_numpy(_written_slots(batch))
        step = self._model.step(batch, self._cache, slots, self._adapters.uses(batch))
        return self._model.hidden(x, step, self._cache)

    def _normed(self, hidden: Tensor, rows: Ints) -> Tensor:
        """Final hidden states of `rows`, an aligned number of them: [>= len(rows), hidden]."""
        picked = hidden[_long(rows)]
        picked = F.pad(picked, (0, 0, 0, aligned(len(rows)) - len(rows)))
        return self._model.final(picked)

    def _logits(self, hidden: Tensor, rows: Ints) -> Tensor:
        return self._model.logits(self._normed(hidden, rows))[: len(rows)]

    def _store(self, batch: Batch, hidden: Tensor) -> None:
        if len(batch.stored_rows):
            kept = self._normed(hidden, batch.stored_rows)[: len(batch.stored_rows)]
            self._embeddings[_long(batch.stored_slots)] = kept

    def _answer(self, batch: Batch, hidden: Tensor) -> BatchResult:
        asked = np.concatenate([batch.sampled_rows, batch.ranked_rows])
        if not len(asked):
            return BatchResult()
        rows, where = np.unique(asked, return_inverse=True)
        logits = self._logits(hidden, rows)
        lowest, highest = logits.aminmax(dim=-1)  # both are NaN where a logit is
        finite = torch.isfinite(lowest) & torch.isfinite(highest)
        if not bool(finite.all()):
            logits = torch.where(finite[:, None], logits, 0.0)
        index = torch.from_numpy(where).long()
        sampled, ranked = index[: len(batch.sampled_rows)], index[len(batch.sampled_rows) :]
        ranking = rank(
            logits,
            ranked,
            torch.from_numpy(batch.ranked_temperature).double(),
            _long(batch.ranked_k),
        )
        return BatchResult(
            tokens=sample(logits, sampled, Draws.of(batch)),
            sampled_finite=finite[sampled].numpy(),
            ranked_ids=ranking.ids,
            ranked_probabilities=ranking.probabilities,
            ranked_starts=ranking.starts,
            ranked_finite=finite[ranked].numpy(),
        )


def _written_slots(batch: Batch) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """[rows] cache slot that each row writes."""
    starts = batch.row_starts.astype(np.int64)
    counts = np.diff(starts)
    logical = np.arange(batch.rows) + np.repeat(batch.lengths - starts[1:], counts)
    entry = np.repeat(batch.page_starts[:-1].astype(np.int64), counts) + logical // PAGE_SIZE
    physical = batch.pages[entry].astype(np.int64)
    slots: np.ndarray[tuple[int], np.dtype[np.int64]] = physical * PAGE_SIZE + logical % PAGE_SIZE
    return slots
