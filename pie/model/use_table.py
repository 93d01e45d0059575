"""Who uses which adapter in a batch, laid out for compiled code."""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.batch import Ints

from .adapter import Use


@attrs.frozen(eq=False)
class UseTable:
    """The uses of a batch as compiled code reads them: addresses, valid while this is kept."""

    uses: list[Use]
    of_row: Ints
    """[rows] the number of a row's use, or -1."""
    layers: NDArray[np.int64]
    """[uses, layers, 3] addresses of a layer's down and up, and its ranks; 0 ranks: no change."""

    @staticmethod
    def of(uses: list[Use], rows: int, layers: int) -> UseTable:
        """Of the uses of a batch of `rows` rows, for a model of `layers` layers."""
        of_row = np.full(rows, -1, dtype=np.int32)
        table = np.zeros((len(uses), layers, 3), dtype=np.int64)
        for number, use in enumerate(uses):
            of_row[use.rows.numpy()] = number
            for layer, delta in enumerate(use.deltas):
                if delta is not None:
                    table[number, layer] = delta.down.data_ptr(), delta.up.data_ptr(), delta.ranks
        return UseTable(uses, of_row, table)

    @property
    def most_ranks(self) -> int:
        """Of any layer of any use."""
        return int(self.layers[:, :, 2].max(initial=0))
