"""A forward pass on its way to a model, and what comes back.

None of these is changed after it was made. Each token needs one of each, so they are not
`attrs.frozen`, which would cost three times as much.
"""

from __future__ import annotations

import attrs

from pie.ids import Pointer


@attrs.define
class Sample:
    """An output slot that yields a token: `logits / temperature`, filters, draw (contract 6)."""

    index: int
    temperature: float
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0


@attrs.define
class Rank:
    """An output slot that yields the `k` most probable tokens with their probabilities."""

    index: int
    temperature: float
    k: int


@attrs.define(eq=False, kw_only=True)
class ForwardPass:
    """A validated pass, frozen by `execute`. Lists are never changed after that.

    `inputs[i]` is a token id, or `-1 - pointer` for an embedding slot. Input i is written to slot
    `length - len(inputs) + i` of the pages, and sees the slots up to its own but for what
    `masks[i]` (runs: attend, hide, attend, ...) hides; no mask, or an empty row, hides nothing.
    """

    inputs: tuple[int, ...]
    positions: tuple[int, ...]
    pages: tuple[Pointer, ...]
    length: int
    masks: tuple[tuple[int, ...], ...] | None = None
    outputs: tuple[Sample | Rank, ...] = ()
    stored: tuple[tuple[int, Pointer], ...] = ()
    """(input index, embedding slot) pairs that receive the final hidden state."""
    adapter: Pointer | None = None
    noise_seed: int | None = None
    """Perturb the adapter with the noise of this seed (`inferlet:zo/evolve`)."""


@attrs.define
class PassResult:
    """Sampled tokens and distributions of a finished pass, each in slot order."""

    tokens: list[int]
    distributions: list[tuple[list[int], list[float]]]
