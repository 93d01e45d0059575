"""From a row of logits to its tokens and distributions (contract 6), without sorting it.

Compiled functions of addresses for the threads of a step: a row's answer depends on nothing but
the row and what is asked of it. `pie.model.sampler` defines the answers; the weights here are
float32, so a draw may differ where its number is within 1e-5 of the border between two tokens.
"""

from __future__ import annotations

from .drawing import draw as draw
from .jit import staged
from .ranking import rank as rank
from .sampling_ops import cap_and_check, finite
from .select import BLOCKS, CHUNK


def scratch_bytes(vocabulary: int) -> int:
    """Bytes that `draw` and `rank` need, which one thread uses at a time."""
    blocks = -(-vocabulary // CHUNK)
    return BLOCKS + -(-(8 * blocks + 16 * vocabulary) // 64) * 64


@staged
def examine(logits: int, vocabulary: int, cap: float) -> int:
    """1 if all are finite, else 0; with `cap` > 0, cap * tanh(logit / cap) is put in place."""
    if cap > 0:
        return int(cap_and_check(logits, vocabulary, cap))
    return int(finite(logits, vocabulary))
