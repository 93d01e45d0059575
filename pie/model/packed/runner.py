"""The packed runner: a `pie.batch.ModelRunner` whose steps are one compiled function."""

from __future__ import annotations

import os
import weakref

import numpy as np
from numpy.typing import NDArray

from pie.batch import AdapterCommand, Batch, BatchResult, Floats, Ints, ModelInfo
from pie.errors import ModelError
from pie.kernels.cpu.arrays import address, reserve
from pie.kernels.cpu.attention import scratch_bytes as attention_scratch_bytes
from pie.kernels.cpu.layout import BLOCK, GROUP, blocks_of
from pie.kernels.cpu.lines import Form
from pie.kernels.cpu.pages import head_bytes, page_bytes
from pie.kernels.cpu.phases import ROWS
from pie.kernels.cpu.plan import PLAN
from pie.kernels.cpu.prepare import prepare
from pie.kernels.cpu.rope import query_bytes
from pie.kernels.cpu.sampling import scratch_bytes as sampling_scratch_bytes
from pie.kernels.cpu.target import require
from pie.multistep import MultiStep
from pie.starting import Bell

from ..adapter import LoraSupport
from ..config import PAGE_SIZE
from .adapters import PackedAdapters
from .checks import complaint
from .crew import Crew
from .flat import reals_of, room_for_masks, sizes_of, words_of
from .following import Following
from .model import PackedModel
from .room import Room

_ZERO = np.zeros(1, np.int32)
_PLACES = {name: place for place, name in enumerate(PLAN.names or ())}
"""Where the fields of the plan are, in words of 64 bits."""


def page_form(kv_form: Form = Form.BF16) -> str:
    """Names what the bits of a page depend on beside the model, for its fingerprint."""
    kept = {Form.BF16: "bfloat16", Form.INT8: "int8"}[kv_form]
    return f"packed for {require().name}, {kept}, {PAGE_SIZE} slots a page"


def _reserve_pages(pages: int, size: int) -> NDArray[np.uint8]:
    """[pages, size], all zero."""
    try:
        return reserve(pages * size).reshape(pages, -1)
    except (OSError, OverflowError) as error:
        raise ModelError(f"no memory for {pages} KV pages of {size} bytes: {error}") from None


def _outputs(batch: Batch) -> int:
    return len(batch.sampled_rows) + len(batch.ranked_rows)


class PackedRunner:
    """One step at a time, or several in one call: a `pie.starting.StartingRunner`."""

    def __init__(
        self,
        model: PackedModel,
        info: ModelInfo,
        support: LoraSupport,
        threads: int | None = None,
        kv_form: Form = Form.BF16,
    ) -> None:
        """Reserve the pages and slots that `info` announces, and start the workers.

        `threads` work on a step; by default, one for each processor that this process may use.
        """
        self.info = info
        self.model = model
        config = model.config
        self._threads = threads or len(os.sched_getaffinity(0))
        self._kv_form = kv_form
        width = model.heads.width
        self._head_bytes = head_bytes(width, kv_form)
        self._page_bytes = page_bytes(config.layers, config.kv_heads, width, kv_form)
        self._pages = _reserve_pages(info.pages, self._page_bytes)
        self._embeddings = np.zeros((info.embedding_slots, config.hidden), np.float32)
        self._plan = np.zeros(1, PLAN)
        self._plan_address = address(self._plan)
        self._plan_words = self._plan.view(np.int64).data
        self._adapters = PackedAdapters(config, model.heads, support)
        self._room = Room(self._plan, model, self._adapters.most_ranks, self._threads)
        self._room.fix(info.pages)
        self._describe_model()
        self._crew = Crew(self._plan, self._threads)
        weakref.finalize(self, self._crew.end)  # before any memory of this object's is given back
        self._held: tuple[object, ...] = ()
        """What the step that was begun last reads and writes by address."""

    # Steps

    def run(self, batch: Batch) -> BatchResult:
        """Run one step. ValueError, before anything is computed, for a batch that is not sound."""
        result = self._prepare_one(batch)
        self._crew.run()
        return result

    @property
    def bell(self) -> Bell:
        return self._crew.bell

    @property
    def over(self) -> bool:
        return self._crew.over

    def start(self, batch: Batch, /) -> BatchResult:
        """Begin one step; see `pie.starting.StartingRunner`, also for the next."""
        result = self._prepare_one(batch)
        self._crew.start()
        return result

    def start_steps(self, steps: MultiStep, /) -> None:
        following = Following.of(steps)
        outputs = {"tokens_out": address(steps.tokens), "finite": address(steps.finite)}
        self._set(answered=1, **outputs, **following.plan())
        self._prepare(steps.batch, following)
        self._crew.start()

    def _prepare_one(self, batch: Batch) -> BatchResult:
        """What will be in the result is not there yet."""
        sampled, ranked_starts = len(batch.sampled_rows), self._ranked_starts(batch)
        entries = int(ranked_starts[-1])
        drawn = np.zeros(sampled + 2 * entries, np.int32)  # tokens, then ids, then probabilities
        finite = np.zeros(_outputs(batch), np.bool_)
        tokens_out = address(drawn)
        self._set(
            answered=1,
            done=0,
            tokens_out=tokens_out,
            ids_out=tokens_out + 4 * sampled,
            probabilities_out=tokens_out + 4 * (sampled + entries),
            finite=address(finite),
        )
        result = BatchResult(
            tokens=drawn[:sampled],
            sampled_finite=finite[:sampled],
            ranked_ids=drawn[sampled : sampled + entries],
            ranked_probabilities=drawn[sampled + entries :].view(np.float32),
            ranked_starts=ranked_starts,
            ranked_finite=finite[sampled:],
        )
        self._prepare(batch, result)
        return result

    def _ranked_starts(self, batch: Batch) -> Ints:
        """[ranked + 1]"""
        if not len(batch.ranked_rows):
            return _ZERO
        counts = np.minimum(batch.ranked_k, self.model.config.vocabulary)
        return np.concatenate([_ZERO, np.cumsum(counts, dtype=np.int32)])

    def logits(self, batch: Batch, rows: Ints) -> Floats:
        """Run a step for its logits [len(rows), vocabulary]; for tests and measurements."""
        vocabulary = self.model.config.vocabulary
        out = np.zeros((len(rows), blocks_of(vocabulary) * BLOCK), np.float32)
        wanted = np.ascontiguousarray(rows, np.int32)
        # All growth comes first: the copy must hold no address of memory that is given back.
        self._room.make(max(batch.rows, len(rows)), _outputs(batch))
        before = self._plan.copy()
        self._set(
            answered=0,
            done=0,
            logits=address(out),
            chunk=max(len(rows), 1),
            wanted=len(rows),
            wanted_rows=address(wanted),
        )
        try:
            self._prepare(batch)
            self._crew.run()
        finally:
            self._plan[:] = before
        found, cap = out[:, :vocabulary], self.model.config.logit_cap
        return cap * np.tanh(found / cap) if cap else found  # a step caps where it samples

    def _prepare(self, batch: Batch, *outputs: object) -> None:
        """Lay a step out, and hold what it needs: the plan has addresses only."""
        words, reals = words_of(batch), reals_of(batch)
        uses = self._adapters.uses_of(batch)
        bits = room_for_masks(batch)
        self._room.make(max(batch.rows, 1), _outputs(batch))
        self._held = words, reals, uses, bits, outputs
        self._set(
            words=address(words),
            reals=address(reals),
            rows=batch.rows,
            passes=batch.passes,
            entries=len(batch.pages),
            embedded=len(batch.embedding_rows),
            stored=len(batch.stored_rows),
            masked=len(batch.masked_rows),
            runs=len(batch.mask_runs),
            sampled=len(batch.sampled_rows),
            ranked=len(batch.ranked_rows),
            cleared=len(batch.cleared_pages),
            emptied=len(batch.cleared_embeddings),
            copies=len(batch.copy_sources),
            mask_bits=address(bits),
            mask_width=bits.shape[1],
            **uses.addresses(),
        )
        sizes = len(words), len(reals)
        if sizes != sizes_of(batch) or not prepare(self._plan_address):
            limits = {"pages": len(self._pages), "slots": len(self._embeddings)}
            reason = complaint(batch, vocabulary=self.model.config.vocabulary, **limits)
            raise ValueError(f"a batch is not sound: {reason}")

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
        self._crew.end()

    # The plan

    def _set(self, **values: int) -> None:
        """Fields that are integers: a step sets forty, in a quarter of the time NumPy takes."""
        words = self._plan_words
        for name, value in values.items():
            words[_PLACES[name]] = value

    def _describe_model(self) -> None:
        config, head_dim = self.model.config, self.model.heads.width
        scratch = max(
            ROWS * max(head_dim, 2 * GROUP, config.hidden // ROWS) * 4,
            attention_scratch_bytes(head_dim),
            sampling_scratch_bytes(config.vocabulary),
        )
        self._scratch = reserve(scratch * self._threads)
        for name, value in self.model.plan().items():
            self._plan[name] = value
        self._set(
            pages=address(self._pages),
            kv_form=int(self._kv_form),
            page_count=len(self._pages),
            embeddings=address(self._embeddings),
            slots=len(self._embeddings),
            page_bytes=self._page_bytes,
            head_bytes=self._head_bytes,
            query_bytes=query_bytes(head_dim),
            scratch_bytes=scratch,
            scratch=address(self._scratch),
            rank_stride=self._adapters.most_ranks,
        )
