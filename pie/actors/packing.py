"""Chunks of passes to the flat arrays of a batch, and the model's answer back to the passes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import attrgetter
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.batch import Batch, BatchResult, floats, ints
from pie.errors import PassFailed
from pie.ids import ResourceKind
from pie.messages import PassResult, Sample
from pie.multistep import MultiStep
from pie.philox import uniforms
from pie.probes import sometimes

from .pages import PageTable
from .passes import PendingPass
from .planner import Chunk

_NUMBER = attrgetter("number")

Slot = tuple[PendingPass, int]
"""An output slot of a pass."""


@attrs.define(eq=False)
class Packer:
    """Collects the arrays of one batch."""

    table: PageTable
    ahead: int = 0
    """Steps that follow this one by themselves: passes have their pages for these, too."""
    tokens: list[int] = attrs.field(factory=list)
    positions: list[int] = attrs.field(factory=list)
    row_starts: list[int] = attrs.field(factory=lambda: [0])
    pages: list[int] = attrs.field(factory=list)
    page_starts: list[int] = attrs.field(factory=lambda: [0])
    lengths: list[int] = attrs.field(factory=list)
    adapters: list[int] = attrs.field(factory=list)
    noise_seeds: list[int | None] = attrs.field(factory=list)
    embedded: list[tuple[int, int]] = attrs.field(factory=list)
    masked_rows: list[int] = attrs.field(factory=list)
    mask_runs: list[int] = attrs.field(factory=list)
    mask_starts: list[int] = attrs.field(factory=lambda: [0])
    copies: list[tuple[int, int]] = attrs.field(factory=list)
    stored: list[tuple[int, int]] = attrs.field(factory=list)
    sampled: list[tuple[int, float, int, float, float]] = attrs.field(factory=list)
    drawn: list[int] = attrs.field(factory=list)
    """Which of the sampled slots need a random number: those that are not argmax."""
    draws: list[tuple[int, int, int, int]] = attrs.field(factory=list)
    sampled_slots: list[Slot] = attrs.field(factory=list)
    ranked: list[tuple[int, float, int]] = attrs.field(factory=list)
    ranked_slots: list[Slot] = attrs.field(factory=list)
    cleared: dict[ResourceKind, list[int]] = attrs.field(factory=dict)

    def add(self, chunk: Chunk) -> None:
        """Append one chunk's rows, pages, masks and outputs."""
        pending, work, base = chunk.work, chunk.work.work, len(self.tokens)
        end = chunk.first + chunk.count
        inputs = work.inputs[chunk.first : end]
        if pending.embeddings:
            self._add_embeddings(pending, inputs, base)
            inputs = tuple(max(value, -1) for value in inputs)
        self.tokens += inputs
        self.positions += work.positions[chunk.first : end]
        self.row_starts.append(len(self.tokens))
        length = work.length - pending.inputs + end
        count = -(-(length + self.ahead) // self.table.page_size)
        self.pages += map(_NUMBER, pending.pages[:count])
        self.page_starts.append(len(self.pages))
        self.lengths.append(length)
        self.adapters.append(-1 if pending.adapter is None else _number(pending.adapter.number))
        self.noise_seeds.append(work.noise_seed)
        if chunk.first == 0:
            self.copies += [(_number(s.number), _number(t.number)) for s, t in pending.copies]
        if work.masks is not None:
            self._add_masks(work.masks[chunk.first : end], base)
        if work.outputs or work.stored:
            self._add_outputs(pending, chunk.first, end, base)

    def _add_embeddings(self, pending: PendingPass, inputs: Sequence[int], base: int) -> None:
        for row, value in enumerate(inputs, base):
            if value < 0:
                self.embedded.append((row, _number(pending.embeddings[-1 - value].number)))

    def _add_masks(self, masks: Sequence[Sequence[int]], base: int) -> None:
        for row, runs in enumerate(masks, base):
            if runs:
                self.masked_rows.append(row)
                self.mask_runs += runs
                self.mask_starts.append(len(self.mask_runs))

    def _add_outputs(self, pending: PendingPass, first: int, end: int, base: int) -> None:
        shift = base - first
        for slot, output in enumerate(pending.work.outputs):
            if not first <= output.index < end:
                continue
            row = output.index + shift
            if isinstance(output, Sample):
                self.sampled.append(
                    (row, output.temperature, output.top_k, output.top_p, output.min_p)
                )
                if output.temperature > 0:
                    self.drawn.append(len(self.sampled_slots))
                    self.draws.append((pending.seed, pending.queue, pending.number, slot))
                self.sampled_slots.append((pending, slot))
            else:
                self.ranked.append((row, output.temperature, output.k))
                self.ranked_slots.append((pending, slot))
        for index, pointer in pending.work.stored:
            if first <= index < end:
                number = _number(pending.embeddings[pointer].number)
                self.stored.append((index + shift, number))

    def batch(self) -> Batch:
        """The finished batch; clears what was handed out again since the last one."""
        rows, temperature, top_k, top_p, min_p = _columns(self.sampled, 5)
        ranked_rows, ranked_temperature, ranked_k = _columns(self.ranked, 3)
        embedded, stored, copies = (
            _columns(pairs, 2) for pairs in (self.embedded, self.stored, self.copies)
        )
        adapted = any(slot >= 0 for slot in self.adapters)
        seeds = self.noise_seeds if adapted else []
        uniform = np.zeros(len(self.sampled), dtype=np.float32)
        if self.drawn:
            uniform[self.drawn] = uniforms(self.draws)
        return Batch(
            tokens=ints(self.tokens),
            positions=ints(self.positions),
            row_starts=ints(self.row_starts),
            pages=ints(self.pages),
            page_starts=ints(self.page_starts),
            lengths=ints(self.lengths),
            adapters=ints(self.adapters if adapted else []),
            noisy=np.array([seed is not None for seed in seeds], dtype=np.bool_),
            noise_seeds=np.array([seed or 0 for seed in seeds], dtype=np.int64),
            embedding_rows=ints(embedded[0]),
            embedding_slots=ints(embedded[1]),
            masked_rows=ints(self.masked_rows),
            mask_runs=ints(self.mask_runs),
            mask_starts=ints(self.mask_starts),
            cleared_pages=ints(self._take_stale(ResourceKind.KV_PAGE)),
            cleared_embeddings=ints(self._take_stale(ResourceKind.EMBEDDING)),
            copy_sources=ints(copies[0]),
            copy_targets=ints(copies[1]),
            stored_rows=ints(stored[0]),
            stored_slots=ints(stored[1]),
            sampled_rows=ints(rows),
            temperature=floats(temperature),
            top_k=ints(top_k),
            top_p=floats(top_p),
            min_p=floats(min_p),
            uniform=uniform,
            ranked_rows=ints(ranked_rows),
            ranked_temperature=floats(ranked_temperature),
            ranked_k=ints(ranked_k),
        )

    def steps(self, batch: Batch) -> MultiStep:
        """`batch`, whose passes are those of decodings, and the steps ahead."""
        uniform = np.zeros((1 + self.ahead, batch.passes), dtype=np.float32)
        uniform[0] = batch.uniform
        if self.drawn:
            draws = np.array(self.draws, dtype=np.uint64)
            later = np.repeat(draws[None], self.ahead, axis=0)
            later[:, :, 2] += np.arange(1, 1 + self.ahead, dtype=np.uint64)[:, None]
            uniform[1:, self.drawn] = uniforms(later.reshape(-1, 4)).reshape(self.ahead, -1)
        stops = [sorted(pending.token.stops) for pending, _ in self.sampled_slots]
        return MultiStep(
            batch=batch,
            uniform=uniform,
            stops=ints([token for each in stops for token in each]),
            stop_starts=ints([0, *accumulate(map(len, stops))]),
        )

    def began_for_good(self) -> None:
        """A step of it is over: what it should clear is cleared, whatever comes."""
        self.cleared.clear()

    def _take_stale(self, kind: ResourceKind) -> list[int]:
        self.cleared[kind] = self.table.pools[kind].take_stale()
        return self.cleared[kind]

    def undo_clears(self) -> None:
        """The batch was lost: what it should have cleared has to be cleared by the next."""
        for kind, numbers in self.cleared.items():
            if numbers:
                sometimes("a lost batch should have cleared pages")
            pool = self.table.pools[kind]
            pool.stale.update(set(numbers) - set(pool.free))

    def unpack(self, result: BatchResult) -> None:
        """Put the model's outputs into the passes; not finite logits fail theirs (F7)."""
        _fail_infinite(self.sampled_slots, result.sampled_finite)
        _fail_infinite(self.ranked_slots, result.ranked_finite)
        for (pending, slot), token in zip(self.sampled_slots, result.tokens.tolist(), strict=True):
            pending.results[slot] = token
        starts = result.ranked_starts.tolist()
        for (pending, slot), first, end in zip(
            self.ranked_slots, starts[:-1], starts[1:], strict=True
        ):
            ids = result.ranked_ids[first:end].tolist()
            pending.results[slot] = ids, result.ranked_probabilities[first:end].tolist()


def _number(number: int | None) -> int:
    assert number is not None, "a resource in a batch has a place"
    return number


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[tuple[Any, ...]]:
    return list(zip(*rows, strict=True)) if rows else [()] * width


def _fail_infinite(slots: list[Slot], finite: NDArray[np.bool_]) -> None:
    if not slots or finite.all():
        return
    for at in np.flatnonzero(~finite).tolist():
        pending, slot = slots[at]
        index = pending.work.outputs[slot].index
        pending.error = PassFailed(f"the logits of input {index} are not finite (F7)")


def result_of(pending: PendingPass) -> PassResult:
    """The outputs of a finished pass, each kind in slot order (F6)."""
    tokens: list[int] = []
    distributions: list[tuple[list[int], list[float]]] = []
    for output, value in zip(pending.work.outputs, pending.results, strict=True):
        (tokens if isinstance(output, Sample) else distributions).append(value)
    return PassResult(tokens, distributions)
