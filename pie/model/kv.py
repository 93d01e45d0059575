"""The paged KV cache of the torch runner.

Each layer keeps K and V as [kv_heads, slots, head_dim], so that a gather of one head's slots is a
ready operand of a product. One more page than was asked for stays zero for ever: it stands in
for slots that do not exist, so that what a page's former owner left is never read, not even
multiplied by zero (0 * NaN is NaN).
"""

from __future__ import annotations

import math

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pie.batch import Ints

from .config import PAGE_SIZE, LlamaConfig


@attrs.frozen(eq=False)
class KVCache:
    """`data` [layers, 2, kv_heads, (pages + 1) * PAGE_SIZE, head_dim], K before V."""

    data: Tensor
    pages: int

    @staticmethod
    def build(config: LlamaConfig, pages: int) -> KVCache:
        slots = (pages + 1) * PAGE_SIZE
        shape = (config.layers, 2, config.kv_heads, slots, config.head_dim)
        # torch.zeros writes them all; numpy's are the system's until a page of it is written.
        return KVCache(torch.from_numpy(np.zeros(shape, dtype=np.float32)), pages)

    @property
    def nowhere(self) -> int:
        """A slot that is always zero."""
        return self.pages * PAGE_SIZE

    def clear(self, pages: Ints) -> None:
        self._page_first()[pages] = 0.0

    def copy(self, sources: Ints, targets: Ints) -> None:
        """Copy whole pages; all sources are read before a target is written."""
        paged = self._page_first()
        paged[targets] = paged[sources]

    def contents(self, pages: Ints) -> NDArray[np.uint8]:
        """All K and V of `pages` [n] as bytes: [n, page bytes], a copy."""
        copied = np.ascontiguousarray(self._page_first()[pages])
        return copied.reshape(len(pages), math.prod(copied.shape[1:])).view(np.uint8)

    def put(self, pages: Ints, contents: NDArray[np.uint8]) -> None:
        """Store what `contents` gave, in any pages."""
        paged = self._page_first()
        values = np.ascontiguousarray(contents).view(np.float32)
        paged[pages] = values.reshape(len(pages), *paged.shape[1:])

    def _page_first(self) -> NDArray[np.float32]:
        """The cache as [pages + 1, layers, 2, kv_heads, PAGE_SIZE, head_dim], not a copy.

        In NumPy, which moves pages 20 to 100 times as fast as torch's index functions.
        """
        *outer, _, dim = self.data.shape
        paged = self.data.view(*outer, self.pages + 1, PAGE_SIZE, dim)
        return np.moveaxis(paged.numpy(), 3, 0)

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store keys and values [rows, kv_heads, head_dim] at `slots` [rows]."""
        self.data[layer, 0].index_copy_(1, slots, keys.transpose(0, 1))
        self.data[layer, 1].index_copy_(1, slots, values.transpose(0, 1))

    def flat_index(self, slots: Tensor) -> Tensor:
        """`slots` [n] as rows of the layers' matrices, head by head: [kv_heads * n]."""
        heads, stride = self.data.shape[2], self.data.shape[3]
        return (torch.arange(heads)[:, None] * stride + slots).flatten()

    def read(self, layer: int, flat_index: Tensor) -> tuple[Tensor, Tensor]:
        """K and V of gathered slots, each [kv_heads * n, head_dim]."""
        keys, values = self.data[layer].flatten(1, 2)
        return keys.index_select(0, flat_index), values.index_select(0, flat_index)
