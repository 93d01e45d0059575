"""The memory that steps work in, by the fields of the plan that hold its addresses."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.errors import PassFailed
from pie.kernels.cpu.arrays import address, reserve
from pie.kernels.cpu.attention import partial_bytes, segments
from pie.kernels.cpu.layout import BLOCK, blocks_of
from pie.kernels.cpu.phases import LINE
from pie.kernels.cpu.plan import REQUEST, TASK
from pie.kernels.cpu.rope import query_bytes
from pie.kernels.cpu.rows import row_bytes
from pie.kernels.cpu.step import PHASES

from ..config import PAGE_SIZE
from .model import PackedModel

LOGIT_BYTES = 64 << 20
"""Memory for the logits of one chunk of rows; at least that of one row."""

_SPARE = 1.5
"""How much more than what is asked for is reserved; it is the system's until it is written."""


@attrs.define(eq=False)
class Room:
    """Pieces of memory that grow to the largest step so far."""

    _plan: NDArray[np.void]
    _model: PackedModel
    _most_ranks: int
    _threads: int
    _rows: int = 0
    _outputs: int = 0
    _held: dict[str, Any] = attrs.field(factory=dict)

    def make(self, rows: int, outputs: int) -> None:
        """See to it that a step of so many rows and outputs fits; PassFailed if memory is short."""
        if rows > self._rows:
            more = int(rows * _SPARE)
            self._reserve(self._of_rows(more))
            self._plan["counter_words"] = self._counter_bytes(more) // 8
            self._rows = more
        if outputs > self._outputs:
            more = int(outputs * _SPARE)
            self._reserve({"requests": more * REQUEST.itemsize})
            self._outputs = more

    def fix(self, pages: int) -> None:
        """Reserve what does not depend on a step: logits, and partials of long rows."""
        config = self._model.config
        width = blocks_of(config.vocabulary) * BLOCK * 4
        chunk = max(1, LOGIT_BYTES // width)
        longest = int(segments(pages * PAGE_SIZE))
        heads = 4 * self._threads * config.group
        partials = heads * longest * int(partial_bytes(self._model.heads.width))
        self._reserve({"logits": chunk * width, "partials": partials})
        self._plan["chunk"] = chunk

    def _reserve(self, sizes: dict[str, int]) -> None:
        for name, size in sizes.items():
            try:
                piece = self._held[name] = reserve(max(size, 64))
            except (OSError, OverflowError) as error:
                raise PassFailed(
                    f"no memory for {size} bytes of a step ({name}): {error}"
                ) from error
            self._plan[name] = address(piece)

    def _of_rows(self, rows: int) -> dict[str, int]:
        config, form = self._model.config, self._model.form
        hidden_row, ffn_row = row_bytes(form, config.hidden), row_bytes(form, config.ffn)
        attended_row = row_bytes(form, config.heads * config.head_dim)
        head_dim = self._model.heads.width
        each = {
            "x": config.hidden * 4,
            "y": config.hidden * 4,
            "xq": max(hidden_row, attended_row),
            "fq": ffn_row,
            "hq": hidden_row,
            "bare": self._model.bare_row,
            "queries": config.heads * query_bytes(head_dim),
            "attended": config.heads * head_dim * 4,
            "factors": len(self._model.ropes) * head_dim * 4,
            "lora": self._most_ranks * 4,
            "tasks": TASK.itemsize,
            "inputs": 8,
            "masks": 8,
            "stored_targets": 8,
            "row_pages": 4,
            "row_slots": 4,
            "wanted_rows": 4,
            "marks": 4,
            "starts": 4,
        }
        sizes = {name: (rows + 1) * size for name, size in each.items()}
        return sizes | {"counters": self._counter_bytes(rows)}

    def _counter_bytes(self, rows: int) -> int:
        """A counter for each phase; every row may be a chunk of logits of its own."""
        return (self._model.config.layers * PHASES + 2 * rows + 2) * LINE
