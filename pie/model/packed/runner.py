"""The packed runner: a `pie.batch.ModelRunner` whose steps are one compiled function."""

from __future__ import annotations

import os
import threading

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.batch import AdapterCommand, Batch, BatchResult, Floats, Ints, ModelInfo
from pie.kernels.cpu.arrays import address, reserve
from pie.kernels.cpu.attention import partial_bytes, segments
from pie.kernels.cpu.attention import scratch_bytes as attention_scratch_bytes
from pie.kernels.cpu.layout import BLOCK, GROUP, blocks_of
from pie.kernels.cpu.lines import Form
from pie.kernels.cpu.pages import head_bytes
from pie.kernels.cpu.phases import LINE, ROWS
from pie.kernels.cpu.plan import PLAN
from pie.kernels.cpu.rope import query_bytes
from pie.kernels.cpu.rows import row_bytes
from pie.kernels.cpu.sampling import scratch_bytes as sampling_scratch_bytes
from pie.kernels.cpu.step import PHASES, run_step, work
from pie.kernels.cpu.target import require
from pie.kernels.cpu.threads import ARRIVED, STOP, SYNC_BYTES, wake

from ..adapter import LoraSupport
from ..config import PAGE_SIZE
from .adapters import PackedAdapters
from .buffers import Buffers
from .model import PackedModel
from .prepare import Asked, asked_of, check, rows_of

LOGIT_BYTES = 64 << 20
"""Most memory for the logits of one chunk of rows, beside those of at least one row."""


def page_form(kv_form: Form = Form.BF16) -> str:
    """Names what the bits of a page depend on beside the model, for its fingerprint."""
    kept = {Form.BF16: "bfloat16", Form.INT8: "int8"}[kv_form]
    return f"packed for {require().name}, {kept}, {PAGE_SIZE} slots a page"


@attrs.frozen(eq=False)
class Answers:
    """Where a step puts its outputs."""

    asked: Asked
    finite: NDArray[np.uint8]
    tokens: Ints
    ids: Ints
    probabilities: Floats

    @staticmethod
    def empty(asked: Asked) -> Answers:
        entries = int(asked.ranked_starts[-1])
        return Answers(
            asked,
            np.zeros(len(asked.rows), np.uint8),
            np.zeros(len(asked.row_of_sampled), np.int32),
            np.zeros(entries, np.int32),
            np.zeros(entries, np.float32),
        )

    def addresses(self) -> dict[str, int]:
        """For the plan."""
        return {
            "requests": address(self.asked.requests),
            "starts": address(self.asked.starts),
            "outputs": len(self.tokens),
            "finite": address(self.finite),
            "tokens_out": address(self.tokens),
            "ids_out": address(self.ids),
            "probabilities_out": address(self.probabilities),
        }

    def result(self) -> BatchResult:
        good = self.finite.astype(np.bool_)
        return BatchResult(
            tokens=self.tokens,
            sampled_finite=good[self.asked.row_of_sampled],
            ranked_ids=self.ids,
            ranked_probabilities=self.probabilities,
            ranked_starts=self.asked.ranked_starts,
            ranked_finite=good[self.asked.row_of_ranked],
        )


class PackedRunner:
    """One batch at a time, on any one thread."""

    def __init__(
        self,
        model: PackedModel,
        info: ModelInfo,
        support: LoraSupport,
        threads: int | None = None,
        kv_form: Form = Form.BF16,
    ) -> None:
        """Reserve the pages and slots that `info` announces, and start the workers.

        `threads` work on a step, the caller's among them; by default, one for each processor that
        this process may use.
        """
        self.info = info
        self.model = model
        config = model.config
        self._threads = threads or len(os.sched_getaffinity(0))
        self._kv_form = kv_form
        self._head_bytes = head_bytes(config.head_dim, kv_form)
        self._page_bytes = config.layers * config.kv_heads * self._head_bytes
        self._pages = reserve(info.pages * self._page_bytes).reshape(info.pages, -1)
        self._embeddings = np.zeros((info.embedding_slots, config.hidden), np.float32)
        self._buffers = Buffers()
        self._sync = np.zeros(SYNC_BYTES // 8, np.int64)
        self._plan = np.zeros(1, PLAN)
        self._met = 0
        self._adapters = PackedAdapters(config, support)
        self._describe_model()
        self._workers: list[threading.Thread] = []
        self._start()

    # Steps

    def run(self, batch: Batch) -> BatchResult:
        """Run one step."""
        self._check(batch)
        self._maintain(batch)
        if not batch.rows:
            return BatchResult()
        asked = asked_of(batch, self.model.config.vocabulary)
        answers = Answers.empty(asked)
        self._set(**answers.addresses())
        self._step(batch, asked.rows)
        return answers.result()

    def logits(self, batch: Batch, rows: Ints) -> Floats:
        """Run a step for its logits [len(rows), vocabulary]; for tests and measurements."""
        self._check(batch)
        self._maintain(batch)
        vocabulary = self.model.config.vocabulary
        out = np.zeros((len(rows), blocks_of(vocabulary) * BLOCK), np.float32)
        self._set(starts=0)
        self._step(batch, rows, out)
        return out[:, :vocabulary]

    def _step(self, batch: Batch, wanted: Ints, logits: Floats | None = None) -> None:
        """Run the rows; of `wanted`, ascending, the logits go to `logits` or to be answered."""
        rows = rows_of(batch)
        inputs = np.zeros(batch.rows, np.int64)
        width = self._embeddings.strides[0]
        slots, kept = batch.embedding_slots.astype(np.int64), batch.stored_slots.astype(np.int64)
        inputs[batch.embedding_rows] = address(self._embeddings) + width * slots
        targets = address(self._embeddings) + width * kept
        # The plan holds addresses only: these live until the step is over.
        uses = self._adapters.uses_of(batch)
        self._set(
            met=self._met,
            rows=batch.rows,
            tokens=address(batch.tokens),
            positions=address(batch.positions),
            inputs=address(inputs),
            row_pages=address(rows.pages),
            row_slots=address(rows.slots),
            masks=address(rows.masks),
            tasks=address(rows.tasks),
            task_count=len(rows.tasks),
            stored=len(targets),
            stored_rows=address(batch.stored_rows),
            stored_targets=address(targets),
            wanted=len(wanted),
            wanted_rows=address(wanted),
            **uses.addresses(),
        )
        self._make_room(batch.rows, len(wanted), logits)
        self._split(batch)
        phases = self.model.config.layers * PHASES + 2 * len(wanted) + 2
        counters = np.zeros(phases * LINE // 8, np.int64)
        self._set(counters=address(counters))
        if self._threads > 1:
            wake(address(self._sync))
        run_step(0, address(self._plan))
        self._met = int(self._sync[ARRIVED // 8])

    def _make_room(self, rows: int, wanted: int, logits: Floats | None) -> None:
        config, form, at = self.model.config, self.model.form, self._buffers.at
        heads = config.heads * config.head_dim
        vocabulary = blocks_of(config.vocabulary) * BLOCK * 4
        chunk = wanted if logits is not None else max(1, min(wanted, LOGIT_BYTES // vocabulary))
        wide = max(row_bytes(form, config.hidden), row_bytes(form, heads))
        self._set(
            x=at("x", rows * config.hidden * 4),
            y=at("y", rows * config.hidden * 4),
            xq=at("xq", rows * wide),
            fq=at("fq", rows * row_bytes(form, config.ffn)),
            queries=at("queries", rows * config.heads * query_bytes(config.head_dim)),
            attended=at("attended", rows * heads * 4),
            factors=at("factors", rows * len(self.model.ropes) * config.head_dim * 4),
            lora=at("lora", rows * self._adapters.most_ranks * 4),
            hq=at("hq", wanted * row_bytes(form, config.hidden)),
            chunk=max(chunk, 1),
            logits=at("logits", chunk * vocabulary) if logits is None else address(logits),
        )

    def _split(self, batch: Batch) -> None:
        """Let threads share long rows where there are too few of them to go round."""
        config = self.model.config
        most = int(segments(int(batch.lengths.max())))
        few = batch.rows == batch.passes and batch.rows * config.kv_heads < 4 * self._threads
        split = most if few and most > 1 and self._threads > 1 else 0
        size = batch.rows * config.heads * split * int(partial_bytes(config.head_dim))
        self._set(split=split, partials=self._buffers.at("partials", size))

    # Pages, embedding slots, adapters

    def read_pages(self, pages: Ints, /) -> NDArray[np.uint8]:
        return self._pages[pages]

    def write_pages(self, pages: Ints, contents: NDArray[np.uint8], /) -> None:
        self._pages[pages] = contents

    def read_embeddings(self, slots: Ints, /) -> Floats:
        return self._embeddings[slots]

    def adapt(self, command: AdapterCommand, /) -> bytes:
        return self._adapters.adapt(command)

    def close(self) -> None:
        """End the workers; the runner cannot be used any more."""
        self._sync[STOP // 8] = 1
        wake(address(self._sync))
        for worker in self._workers:
            worker.join()
        self._workers = []

    def _maintain(self, batch: Batch) -> None:
        self._pages[batch.cleared_pages] = 0
        self._embeddings[batch.cleared_embeddings] = 0.0
        if len(batch.copy_sources):
            self._pages[batch.copy_targets] = self._pages[batch.copy_sources]

    def _check(self, batch: Batch) -> None:
        vocabulary, slots = self.model.config.vocabulary, len(self._embeddings)
        check(batch, pages=len(self._pages), vocabulary=vocabulary, slots=slots)

    # The plan

    def _set(self, **values: float) -> None:
        for name, value in values.items():
            self._plan[name] = value

    def _describe_model(self) -> None:
        config = self.model.config
        scratch = max(
            ROWS * max(config.head_dim, 2 * GROUP, config.hidden // ROWS) * 4,
            attention_scratch_bytes(config.head_dim),
            sampling_scratch_bytes(config.vocabulary),
        )
        self._set(
            **self.model.plan(),
            sync=address(self._sync),
            threads=self._threads,
            pages=address(self._pages),
            kv_form=int(self._kv_form),
            page_bytes=self._page_bytes,
            head_bytes=self._head_bytes,
            query_bytes=query_bytes(config.head_dim),
            scratch_bytes=scratch,
            scratch=self._buffers.at("scratch", scratch * self._threads),
            rank_stride=self._adapters.most_ranks,
        )

    def _start(self) -> None:
        """Start the workers."""
        self._workers = [
            threading.Thread(target=work, args=(n, address(self._plan)), daemon=True)
            for n in range(1, self._threads)
        ]
        for worker in self._workers:
            worker.start()
