"""Heads as the kernels take them: of a size that may not be the model's.

A head is whole blocks of a matrix, and its halves, which rotation turns against each other, are
whole vectors. So each half of a head has zeros behind it where there are too few dimensions. They
are rows of zeros in the weights of q, k and v, stay zeros, and add nothing to what follows; a
norm counts them, which its weight and epsilon make up for.
"""

from __future__ import annotations

import math

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.batch import Floats
from pie.kernels.cpu.layout import BLOCK, GROUP

from ..config import LlamaConfig, QKNorm


@attrs.frozen
class Heads:
    """How heads of `size` dimensions lie in `width` of them."""

    size: int
    width: int

    @staticmethod
    def of(config: LlamaConfig) -> Heads:
        # Norms of whole rows take groups.
        unit = GROUP if config.qk_norm is QKNorm.ROW else BLOCK
        return Heads(config.head_dim, -(-config.head_dim // unit) * unit)

    @property
    def share(self) -> float:
        """Of the dimensions that are the model's."""
        return self.size / self.width

    def order(self, count: int) -> NDArray[np.int64]:
        """[count * width] which of [count * size] outputs lies there; -1: zeros."""
        halves = np.full((count, 2, self.width // 2), -1)
        halves[..., : self.size // 2] = np.arange(count * self.size).reshape(count, 2, -1)
        return halves.reshape(-1)

    def spread(self, values: Floats) -> Floats:
        """[heads * size, ...] as [heads * width, ...]."""
        order = self.order(len(values) // self.size)
        spread = values[order]
        spread[order < 0] = 0.0
        return spread

    def spread_norm(self, weight: Floats) -> Floats:
        """The weight of a norm of [heads * size] for [heads * width] and an epsilon times `share`.

        The mean of squares over all dimensions is `share` times that over the model's.
        """
        return self.spread(weight) * np.float32(math.sqrt(self.share))
