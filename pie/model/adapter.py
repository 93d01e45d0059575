"""LoRA on q, k and v: what adapter slots hold, and how a batch's rows get theirs (contract X8).

Hu et al.: "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022. The rows of a batch
that share an adapter and its noise are one *use*. What a runner does with it leaves a row's bits
to depend on nothing but the row and its adapter.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.batch import (
    AdapterCommand,
    Batch,
    ClearAdapter,
    DownloadAdapter,
    Floats,
    InitializeAdapter,
    UpdateAdapter,
    UploadAdapter,
)
from pie.errors import PassFailed

from .config import LlamaConfig
from .evolution import Strategy
from .lora_file import TARGETS, Adapter, outputs, read_adapter, write_adapter

NOISY_BYTES = 1 << 30
"""Most memory for perturbed adapters that are kept for the next step."""


@attrs.frozen
class LoraSupport:
    """A `pie.batch.AdapterSupport` for a model of one shape."""

    _config: LlamaConfig
    slots: int
    max_rank: int

    def check(self, data: bytes, /) -> None:
        """Raise GuestError unless `data` is a LoRA adapter for this model."""
        read_adapter(data, self._config, self.max_rank)


@attrs.frozen(eq=False)
class Delta:
    """What an adapter adds to the outputs of a layer's q, k and v."""

    down: Floats  # [ranks of q, k and v together, hidden]
    up: Floats  # [q, k and v rows, ranks], zero outside its three blocks, scaled by alpha / rank

    @property
    def bytes(self) -> int:
        return 4 * (self.down.size + self.up.size)


Deltas = list[Delta | None]
"""One per layer; None: no change."""


def _delta(
    adapter: Adapter, layer: int, config: LlamaConfig, outputs_of: Callable[[Floats], Floats]
) -> Delta | None:
    """The three projections of a layer become one."""
    found = [(target, adapter.get((layer, target))) for target in TARGETS]
    ranks = sum(projection.rank for _, projection in found if projection is not None)
    if not ranks:
        return None
    rows = outputs(config)
    down = np.empty((ranks, config.hidden), dtype=np.float32)
    up = np.zeros((sum(rows.values()), ranks), dtype=np.float32)
    rank = row = 0
    for target, projection in found:
        if projection is not None:
            scale = np.float32(projection.alpha / projection.rank)
            columns = slice(rank, rank + projection.rank)
            down[columns] = projection.down
            up[row : row + rows[target], columns] = projection.up * scale
            rank = columns.stop
        row += rows[target]
    return Delta(down, outputs_of(up))


@attrs.frozen(eq=False)
class Use:
    """The rows of a batch that share an adapter and its noise."""

    rows: NDArray[np.int64]
    deltas: Deltas


@attrs.frozen(eq=False)
class _Slot:
    adapter: Adapter
    """Without noise."""
    deltas: Deltas
    strategy: Strategy | None
    """None: the adapter was uploaded; it has no noise and cannot be updated."""


@attrs.define(eq=False)
class AdapterBank:
    """The adapter slots of a runner."""

    _config: LlamaConfig
    _support: LoraSupport
    _outputs: Callable[[Floats], Floats] = lambda up: up
    """From a delta's `up` with the model's q, k and v rows to one with those of the runner."""
    _slots: dict[int, _Slot] = attrs.field(factory=dict, repr=False)
    _noisy: OrderedDict[tuple[int, int], Deltas] = attrs.field(factory=OrderedDict, repr=False)
    """Perturbed adapters by (slot, seed), the least recently used first."""
    _noisy_bytes: int = 0

    def adapt(self, command: AdapterCommand) -> bytes:
        """Carry out `command`; PassFailed if the slot or the values do not allow it."""
        if not 0 <= command.slot < self._support.slots:
            raise IndexError(f"adapter slot {command.slot} of {self._support.slots}")
        with _unbounded():
            return self._adapt(command)

    def _adapt(self, command: AdapterCommand) -> bytes:
        match command:
            case ClearAdapter():
                self._slots.pop(command.slot, None)
                self._forget_noise(command.slot)
            case UploadAdapter(data=data):
                adapter = read_adapter(data, self._config, self._support.max_rank)
                self._put(command.slot, adapter, None)
            case DownloadAdapter():
                return write_adapter(self._held(command.slot).adapter)
            case InitializeAdapter():
                strategy = Strategy.start(command, self._config, self._support.max_rank)
                self._put(command.slot, strategy.adapter(), strategy)
            case UpdateAdapter():
                strategy_now = self._held(command.slot).strategy
                if strategy_now is None:
                    raise PassFailed(
                        f"update-adapter: slot {command.slot} holds an uploaded adapter; "
                        "initialize-adapter starts a strategy (X8)"
                    )
                updated = strategy_now.update(command)
                self._put(command.slot, updated.adapter(), updated)
        return b""

    def uses(self, batch: Batch) -> list[Use]:
        """Who uses what in `batch`; passes whose slot holds nothing run on the bare model."""
        numbers: dict[tuple[int, int | None], int] = {}
        of_pass = np.full(batch.passes, -1)
        for i, slot in enumerate(batch.adapters.tolist()):
            held = self._slots.get(slot)
            if held is None:
                continue
            noisy = held.strategy is not None and bool(batch.noisy[i])
            key = (slot, int(batch.noise_seeds[i]) if noisy else None)
            of_pass[i] = numbers.setdefault(key, len(numbers))
        of_row = np.repeat(of_pass, np.diff(batch.row_starts))
        return [
            Use(_where(of_row, number), self._deltas(slot, seed))
            for (slot, seed), number in numbers.items()
        ]

    def _held(self, slot: int) -> _Slot:
        held = self._slots.get(slot)
        if held is None:
            raise PassFailed(f"adapter slot {slot} holds nothing (X8)")
        return held

    def _put(self, slot: int, adapter: Adapter, strategy: Strategy | None) -> None:
        self._slots[slot] = _Slot(adapter, self._merged(adapter), strategy)
        self._forget_noise(slot)

    def _merged(self, adapter: Adapter) -> Deltas:
        config = self._config
        return [_delta(adapter, layer, config, self._outputs) for layer in range(config.layers)]

    def _forget_noise(self, slot: int) -> None:
        for key in [key for key in self._noisy if key[0] == slot]:
            self._noisy_bytes -= _bytes(self._noisy.pop(key))

    def _deltas(self, slot: int, seed: int | None) -> Deltas:
        held = self._slots[slot]
        if seed is None or held.strategy is None:
            return held.deltas
        kept = self._noisy.get((slot, seed))
        if kept is not None:
            self._noisy.move_to_end((slot, seed))
            return kept
        with _unbounded():
            made = self._merged(held.strategy.adapter(seed))
        self._noisy[slot, seed] = made
        self._noisy_bytes += _bytes(made)
        while self._noisy_bytes > NOISY_BYTES and len(self._noisy) > 1:
            _, oldest = self._noisy.popitem(last=False)
            self._noisy_bytes -= _bytes(oldest)
        return made


def _unbounded() -> np.errstate:
    """Let a guest's weights overflow in silence: its passes fail, their logits not being finite."""
    return np.errstate(over="ignore", invalid="ignore")


def _where(of_row: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    return np.flatnonzero(of_row == number)


def _bytes(deltas: Deltas) -> int:
    return sum(delta.bytes for delta in deltas if delta is not None)
