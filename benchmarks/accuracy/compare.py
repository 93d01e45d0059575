"""Two runners on one text: how often they agree on the next token, and how far they are apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.batch import Batch, Ints, ints

Logits: TypeAlias = Callable[[Batch, Ints], Any]
"""A runner's `logits`: [rows, vocabulary] as an array or a tensor."""

_ROWS = 64
"""Rows whose distributions are held in float64 at once."""


@attrs.frozen
class Divergence:
    """Of a runner from the reference, over all tokens of a text but each window's last."""

    tokens: int
    agreement: float
    """Share of tokens with the same most probable successor."""
    mean_kl: float
    """Mean of KL(reference || runner), in nats."""
    max_kl: float
    loss: float
    """The reference's own mean -log p of the text, in nats: what it makes of the text."""


def windows(tokens: Sequence[int], size: int, page_size: int) -> Iterator[Batch]:
    """The text in sequences of `size` tokens, each from position 0, all on the same pages."""
    for start in range(0, len(tokens), size):
        part = tokens[start : start + size]
        pages = -(-len(part) // page_size)
        yield Batch(
            tokens=ints(part),
            positions=ints(range(len(part))),
            row_starts=ints([0, len(part)]),
            pages=ints(range(pages)),
            page_starts=ints([0, pages]),
            lengths=ints([len(part)]),
            cleared_pages=ints(range(pages)),
        )


def compare(reference: Logits, other: Logits, batches: Sequence[Batch]) -> Divergence:
    """Run both over `batches`, one sequence each."""
    kl: list[NDArray[np.float64]] = []
    same: list[NDArray[np.bool_]] = []
    losses: list[NDArray[np.float64]] = []
    for batch in batches:
        rows = ints(range(batch.rows - 1))
        expected, found = np.asarray(reference(batch, rows)), np.asarray(other(batch, rows))
        for first in range(0, len(rows), _ROWS):
            part = slice(first, min(first + _ROWS, len(rows)))
            p, q = _log_softmax(expected[part]), _log_softmax(found[part])
            kl.append((np.exp(p) * (p - q)).sum(axis=1))
            same.append(p.argmax(axis=1) == q.argmax(axis=1))
            followers = batch.tokens[part.start + 1 : part.stop + 1]
            losses.append(-p[np.arange(len(p)), followers])
    all_kl = np.concatenate(kl)
    return Divergence(
        tokens=len(all_kl),
        agreement=float(np.concatenate(same).mean()),
        mean_kl=float(all_kl.mean()),
        max_kl=float(all_kl.max()),
        loss=float(np.concatenate(losses).mean()),
    )


def _log_softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    x = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    x -= np.log(np.exp(x).sum(axis=1, keepdims=True))
    return x
