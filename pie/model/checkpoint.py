"""What a loader hands over: a config, tensors by canonical name, a tokenizer, chat facts.

Canonical names are those of GGUF (`blk.0.attn_q.weight`, ...), and rotary pairs are always two
halves of a head (index i turns with i + head_dim / 2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.batch import Tokenizer
from pie.errors import ModelError
from pie.kernels.cpu.layout import Kind, Packed

from .config import LlamaConfig
from .packed.arena import ALIGNMENT, Arena
from .packed.conversions import Conversions
from .packed.matrix import Matrix

if TYPE_CHECKING:
    import torch

Reader: TypeAlias = Callable[[], NDArray[np.float32]]
"""Decodes a tensor into memory of its own."""


@attrs.define(eq=False)
class Tensors:
    """The tensors of a file, decoded or packed when taken; a model takes every one, once."""

    _readers: dict[str, Reader]
    _source: str
    """The file or folder, for error texts."""
    _matrices: dict[str, Matrix] = attrs.field(factory=dict)
    """What could be packed."""
    _conversions: Conversions = attrs.field(factory=Conversions)

    def __contains__(self, name: str) -> bool:
        return name in self._readers

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """The tensor as contiguous float32; ModelError if it is missing or of another shape."""
        import torch  # here, so that who packs needs none

        return torch.from_numpy(self.take_array(name, *shape))

    def take_array(self, name: str, *shape: int) -> NDArray[np.float32]:
        """As `take`, for numpy."""
        reader = self._readers.pop(name, None)
        if reader is None:
            raise ModelError(f"{self._source}: tensor {name} is missing")
        values = np.ascontiguousarray(reader())
        if matrix := self._matrices.pop(name, None):
            matrix.file.forget(matrix.rows)
        self._check_shape(name, values.shape, shape)
        return values

    def packed_bytes(self, floats: Kind = Kind.Q8) -> int:
        """Bytes that all matrices that are left need, packed; NotPackable if one cannot be."""
        sizes = [matrix.packed_bytes(floats) for matrix in self._matrices.values()]
        return sum(size + ALIGNMENT for size in sizes)

    def arena(self, floats: Kind = Kind.Q8) -> Arena:
        """Memory in which all matrices that are left fit, packed.

        NotPackable, before anything is taken, if one of them cannot be.
        """
        return Arena.reserve(self.packed_bytes(floats))

    def reorder(self, name: str, outputs: int, inputs: int, order: NDArray[np.int64]) -> None:
        """Let the matrix [outputs, inputs] be packed with its outputs in `order`, -1: zeros.

        ModelError as `take`.
        """
        self._matrices[name] = self._matrix(name, outputs, inputs).reordered(order)

    def take_packed(
        self, name: str, outputs: int, inputs: int, arena: Arena, floats: Kind = Kind.Q8
    ) -> Packed:
        """The matrix [outputs, inputs], packed into `arena` straight from the file.

        `floats` (Q8 or BF16) is what single floats become. ModelError as `take`; NotPackable,
        with the tensor left where it is, if the layout cannot hold it.
        """
        matrix = self._matrix(name, outputs, inputs)
        packed, error = matrix.pack(arena, floats)
        self._conversions.note(matrix.format, packed.kind, error)
        self.drop([name])
        return packed

    def _matrix(self, name: str, outputs: int, inputs: int) -> Matrix:
        matrix = self._matrices.get(name)
        if matrix is None:
            what = "is no matrix of a known format" if name in self else "is missing"
            raise ModelError(f"{self._source}: tensor {name} {what}")
        self._check_shape(name, (matrix.outputs, matrix.inputs), (outputs, inputs))
        return matrix

    def _check_shape(self, name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        if found != wanted:
            raise ModelError(
                f"{self._source}: tensor {name} has shape {list(found)}, "
                f"the model's sizes ask for {list(wanted)}"
            )

    def drop(self, names: Iterable[str]) -> None:
        """Forget tensors that are known to carry nothing."""
        for name in names:
            self._readers.pop(name, None)
            self._matrices.pop(name, None)

    def check_all_taken(self) -> None:
        """ModelError if something is left: the model would not be what the file says.

        Says in the log what was converted with loss.
        """
        if self._readers:
            first = sorted(self._readers)[:4]
            raise ModelError(
                f"{self._source}: {len(self._readers)} tensors have no place in this "
                f"architecture: {', '.join(first)}"
            )
        self._conversions.report(self._source)


@attrs.frozen(eq=False, kw_only=True)
class Checkpoint:
    """A model file that has been understood but not yet built."""

    name: str
    description: str
    config: LlamaConfig
    tensors: Tensors
    tokenizer: Tokenizer
    prompt_template: str
    """Jinja source; empty if the file has none."""
    stop_tokens: tuple[str, ...]
