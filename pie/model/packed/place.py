"""Rows of codes, put where `pie.kernels.cpu.layout` wants them.

A line of the layout is 16 outputs wide, with 4 bytes of each: so is every line a row of 32-bit
*words*, and packing is a transposition of words. `layout.pack_*` do the same from single codes,
several times slower; tests hold the two against each other.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.kernels.cpu.layout import BLOCK, Bytes, Halves, Kind

Words: TypeAlias = NDArray[np.uint32]

_LINE_BYTES = 4 * BLOCK
_HALVES_BYTES = 2 * BLOCK


@attrs.frozen(eq=False)
class Coded:
    """Rows of a matrix in groups of 32 inputs, as codes of one kind."""

    kind: Kind
    words: Words
    """[rows, groups, words]: 4 words of a Q4 group (byte i is input i, and 16 + i above it), 8
    of signed bytes, 16 of pairs of bfloat16. Need not be aligned or contiguous."""
    scales: Halves | None = None
    """[rows, groups]; none for BF16."""
    minima: Halves | None = None
    """[rows, groups] for Q4 and Q8M."""
    error: float = 0.0
    """Largest difference to the file's own values, as a share of the largest magnitude that
    its group can hold. 0: bit for bit the same."""


def place(coded: Coded, out: Bytes) -> None:
    """Write all of `out` [blocks, bytes of a block]; outputs that are not there become zeros."""
    groups, lines = coded.words.shape[1:]
    if coded.kind is Kind.Q4:
        of_groups = out.reshape(len(out), groups, -1)  # its scales follow each group
        tail = of_groups[:, :, lines * _LINE_BYTES :]
        heads, tails = of_groups[:, :, : lines * _LINE_BYTES], [tail[:, :, :32], tail[:, :, 32:]]
    else:
        end = groups * lines * _LINE_BYTES
        heads = out[:, :end].reshape(len(out), groups, -1)
        rest = out[:, end:].reshape(len(out), -1, groups, _HALVES_BYTES)
        tails = [rest[:, i] for i in range(rest.shape[1])]
    _put(heads.view(np.uint32).reshape(len(out), groups, lines, BLOCK), coded.words)
    for tail, halves in zip(tails, (coded.scales, coded.minima), strict=False):
        assert halves is not None, coded.kind
        _put(tail.view(np.float16), halves)


def _put(target: NDArray[Any], source: NDArray[Any]) -> None:
    """[rows, ...] to [blocks, ..., BLOCK]."""
    whole, rest = divmod(len(source), BLOCK)
    blocks = source[: whole * BLOCK].reshape(whole, BLOCK, *source.shape[1:])
    target[:whole] = np.moveaxis(blocks, 1, -1)
    if rest:
        target[whole, ..., :rest] = np.moveaxis(source[whole * BLOCK :], 0, -1)
        target[whole, ..., rest:] = 0
