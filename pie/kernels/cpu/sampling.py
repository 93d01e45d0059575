"""From a row of logits to its tokens and distributions (contract 6), without sorting it.

Compiled functions of addresses for the threads of a step: a row's answer depends on nothing but
the row and what is asked of it. `pie.model.sampler` defines the answers; the weights here are
float32, so a draw may differ where its number is within 1e-5 of the border between two tokens.
"""

from __future__ import annotations

from typing import Any

from .drawing import draw as draw
from .jit import compiled
from .ranking import rank as rank
from .sampling_ops import cap_and_check, finite
from .select import BLOCKS, CHUNK


def scratch_bytes(vocabulary: int) -> int:
    """Bytes that `draw` and `rank` need, which one thread uses at a time."""
    blocks = -(-vocabulary // CHUNK)
    return BLOCKS + -(-(8 * blocks + 16 * vocabulary) // 64) * 64


@compiled
def examine(logits: Any, vocabulary: Any, cap: Any) -> bool:
    """Whether all are finite, after `cap` * tanh(logit / cap) was put in place if `cap` > 0."""
    if cap > 0:
        return bool(cap_and_check(logits, vocabulary, cap))
    return bool(finite(logits, vocabulary))
