"""What a loader hands over: a config, tensors by canonical name, a tokenizer, chat facts.

Canonical names are those of GGUF (`blk.0.attn_q.weight`, ...), and rotary pairs are always two
halves of a head (index i turns with i + head_dim / 2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs
import torch

from pie.batch import Tokenizer
from pie.errors import ModelError

from .config import LlamaConfig


@attrs.define(eq=False)
class Tensors:
    """The tensors of a file, decoded when taken; whoever builds a model takes every one."""

    _readers: dict[str, Callable[[], torch.Tensor]]
    _source: str
    """The file or folder, for error texts."""

    def __contains__(self, name: str) -> bool:
        return name in self._readers

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """The tensor as contiguous float32; ModelError if it is missing or of another shape."""
        reader = self._readers.pop(name, None)
        if reader is None:
            raise ModelError(f"{self._source}: tensor {name} is missing")
        tensor = reader().to(torch.float32).contiguous()
        if tuple(tensor.shape) != shape:
            raise ModelError(
                f"{self._source}: tensor {name} has shape {list(tensor.shape)}, "
                f"the model's sizes ask for {list(shape)}"
            )
        return tensor

    def drop(self, names: Iterable[str]) -> None:
        """Forget tensors that are known to carry nothing."""
        for name in names:
            self._readers.pop(name, None)

    def check_all_taken(self) -> None:
        """ModelError if something is left: the model would not be what the file says."""
        if self._readers:
            first = sorted(self._readers)[:4]
            raise ModelError(
                f"{self._source}: {len(self._readers)} tensors have no place in this "
                f"architecture: {', '.join(first)}"
            )


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
