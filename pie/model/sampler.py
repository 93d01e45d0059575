"""From logits to tokens and distributions (contract 6), for all slots of a batch at once.

Sums are running sums in a fixed order, in float64, so that a slot's answer does not depend on
the batch. No vocabulary is sorted: filters only need the value of the last token they keep.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import numpy as np
import torch
from torch import Tensor

from pie.batch import Batch, Floats, Ints

_FIRST_LOOK = 256
"""Candidates that usually hold the mass of a top-p; a row that needs more is sorted whole."""

_SLOTS_AT_ONCE = 64
"""Bounds the float64 copies of the logits."""


@attrs.frozen(eq=False, kw_only=True)
class Draws:
    """Parameters of sampled slots, one entry per slot."""

    temperature: Tensor  # float64
    top_k: Tensor  # int64
    top_p: Tensor  # float64
    min_p: Tensor  # float64
    uniform: Tensor  # float64

    @staticmethod
    def of(batch: Batch) -> Draws:
        return Draws(
            temperature=torch.from_numpy(batch.temperature).double(),
            top_k=torch.from_numpy(batch.top_k).long(),
            top_p=torch.from_numpy(batch.top_p).double(),
            min_p=torch.from_numpy(batch.min_p).double(),
            uniform=torch.from_numpy(batch.uniform).double(),
        )

    def at(self, chosen: Tensor) -> Draws:
        fields = {name: tensor[chosen] for name, tensor in attrs.asdict(self).items()}
        return Draws(**fields)

    def greedy(self) -> Tensor:
        """[slots] Where the settings leave only the most probable token (S1)."""
        return (self.temperature == 0) | (self.top_p <= 0) | (self.min_p > 1) | (self.top_k == 1)


def sample(logits: Tensor, rows: Tensor, draws: Draws) -> Ints:
    """The token of each slot; `rows` [slots] says which row of finite `logits` it reads."""
    best = logits.argmax(-1)  # the first of equals, as S1 asks
    tokens = best[rows]
    for chosen in _in_parts(~draws.greedy()):
        tokens[chosen] = _draw(logits[rows[chosen]].double(), draws.at(chosen))
    return tokens.to(torch.int32).numpy()


def _in_parts(wanted: Tensor) -> Iterator[Tensor]:
    """The slots where `wanted` holds, a bounded number at a time."""
    slots = torch.nonzero(wanted)[:, 0]
    for start in range(0, len(slots), _SLOTS_AT_ONCE):
        yield slots[start : start + _SLOTS_AT_ONCE]


def _draw(logits: Tensor, draws: Draws) -> Tensor:
    """Draw from float64 `logits` [slots, vocabulary], one token each."""
    scaled = logits / draws.temperature[:, None]
    weights = (scaled - scaled.amax(-1, keepdim=True)).exp_()
    vocabulary = weights.shape[1]
    k = torch.where((draws.top_k > 0) & (draws.top_k < vocabulary), draws.top_k, vocabulary)
    by_count = torch.nonzero((k < vocabulary) | (draws.top_p < 1))[:, 0]
    if len(by_count):
        kept = _kept_count(weights[by_count], k[by_count], draws.top_p[by_count])
        weights[by_count] *= first_by_rank(logits[by_count], kept)
    weights *= weights >= draws.min_p[:, None]  # the largest weight is 1
    running = weights.cumsum(-1)
    target = draws.uniform[:, None] * running[:, -1:]
    return torch.searchsorted(running, target, right=True)[:, 0]


def _kept_count(weights: Tensor, k: Tensor, top_p: Tensor) -> Tensor:
    """How many of the heaviest entries of each row top-k, then top-p, keep: at least one."""
    vocabulary = weights.shape[1]
    partial = k < vocabulary
    look = int(k[partial].max()) if bool(partial.any()) else 0
    look = min(vocabulary, max(look, _FIRST_LOOK))
    heaviest = weights.topk(look, dim=-1).values.cumsum(-1)
    # The total of all entries comes in order of ids, that of k entries in order of weight.
    within = heaviest.gather(1, k.clamp(max=look)[:, None] - 1)[:, 0]
    total = torch.where(partial, within, weights.cumsum(-1)[:, -1])
    wanted = (top_p.clamp(max=1.0) * total)[:, None]
    count = (heaviest < wanted).sum(-1) + 1
    count = torch.where(top_p < 1, torch.minimum(count, k), k)
    beyond = torch.nonzero((count > look) & (count < vocabulary))[:, 0]
    if len(beyond):
        ordered = weights[beyond].sort(dim=-1, descending=True).values.cumsum(-1)
        count[beyond] = (ordered < wanted[beyond]).sum(-1).add(1).clamp(max=vocabulary)
    return count


def first_by_rank(values: Tensor, count: Tensor) -> Tensor:
    """Boolean mask of the `count` largest of each row, of equal values the lowest ids.

    `values` is [rows, n], `count` [rows] between 1 and n.
    """
    longest = int(count.max())
    top = values.topk(longest, dim=-1).values
    last = top.gather(1, count[:, None] - 1)
    above = values > last
    equal = values == last
    room = count - above.sum(-1)
    return above | (equal & (equal.cumsum(-1) <= room[:, None]))


@attrs.frozen(eq=False)
class Ranking:
    """Distributions, one after the other: entry `starts[i]` is the first of distribution i."""

    ids: Ints
    probabilities: Floats
    starts: Ints


def rank(logits: Tensor, rows: Tensor, temperature: Tensor, k: Tensor) -> Ranking:
    """The `k` [slots] most probable tokens of each slot's row of finite `logits` (S2)."""
    counts = k.clamp(max=logits.shape[1])
    ids: list[Ints] = [np.zeros(0, np.int32)]
    probabilities: list[Floats] = [np.zeros(0, np.float32)]
    for chosen in _in_parts(counts > 0):
        entries = _rank(logits[rows[chosen]].double(), temperature[chosen], counts[chosen])
        ids.append(entries[0])
        probabilities.append(entries[1])
    starts = np.concatenate([np.zeros(1, np.int32), counts.numpy().cumsum()])
    return Ranking(np.concatenate(ids), np.concatenate(probabilities), starts.astype(np.int32))


def _rank(logits: Tensor, temperature: Tensor, counts: Tensor) -> tuple[Ints, Floats]:
    greedy = temperature == 0
    scaled = logits / torch.where(greedy, 1.0, temperature)[:, None]
    weights = (scaled - scaled.amax(-1, keepdim=True)).exp_()
    weights /= weights.cumsum(-1)[:, -1:]
    slot, token = first_by_rank(logits, counts).nonzero(as_tuple=True)
    order = torch.from_numpy(np.lexsort((token, -logits[slot, token].numpy(), slot.numpy())))
    slot, token = slot[order], token[order]
    probability = weights[slot, token]
    first = torch.cat([torch.ones(1, dtype=torch.bool), slot[1:] != slot[:-1]])
    probability = torch.where(greedy[slot], first.double(), probability)
    return token.to(torch.int32).numpy(), probability.float().numpy()
