"""LoRA in the packed runner: the slots of `AdapterBank`, and what a step reads of them."""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.batch import AdapterCommand, Batch, Ints
from pie.kernels.cpu.arrays import address
from pie.kernels.cpu.plan import USE

from ..adapter import AdapterBank, LoraSupport, Use
from ..config import LlamaConfig
from ..lora_file import TARGETS
from .heads import Heads


@attrs.frozen(eq=False)
class StepUses:
    """The adapters of a step, if any; holds all that its addresses point to."""

    uses: list[Use]
    records: NDArray[np.void]
    """[uses, layers]"""
    row_uses: Ints
    """[rows] number of the row's use, or -1."""

    def addresses(self) -> dict[str, int]:
        """For the plan."""
        if not self.uses:
            return {"use_count": 0}
        return {
            "use_count": len(self.uses),
            "uses": address(self.records),
            "row_uses": address(self.row_uses),
        }


_NO_USES = StepUses([], np.zeros(0, USE), np.zeros(0, np.int32))


class PackedAdapters:
    """The adapter slots of a packed runner."""

    def __init__(self, config: LlamaConfig, heads: Heads, support: LoraSupport) -> None:
        self._layers = config.layers
        self._bank = AdapterBank(config, support, heads.spread)
        self.most_ranks = len(TARGETS) * support.max_rank
        """Most inner products of a row in one layer."""

    def adapt(self, command: AdapterCommand) -> bytes:
        return self._bank.adapt(command)

    def uses_of(self, batch: Batch) -> StepUses:
        """Who uses what in `batch`."""
        if not len(batch.adapters):
            return _NO_USES
        uses = self._bank.uses(batch)
        records = np.zeros((len(uses), self._layers), USE)
        row_uses = np.full(batch.rows, -1, np.int32)
        for number, use in enumerate(uses):
            row_uses[use.rows] = number
            for layer, delta in enumerate(use.deltas):
                if delta is not None:
                    place = address(delta.down), address(delta.up)
                    records[number, layer] = (*place, len(delta.down))
        return StepUses(uses, records, row_uses)
