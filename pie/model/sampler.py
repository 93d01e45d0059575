"""From logits to tokens and distributions (contract 6), for all slots of a batch at once.

Sums are running sums in a fixed order, in float64, so that a slot's answer does not depend on
the batch. Filters need the value of the last token that they keep, so only values are sorted,
never ids; numpy's vectorised sort of float32 takes a tenth of torch's time.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import numpy as np
import torch
from torch import Tensor

from pie.batch import Batch, Floats, Ints

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
        tokens[chosen] = _draw(logits[rows[chosen]], draws.at(chosen))
    return tokens.to(torch.int32).numpy()


def _in_parts(wanted: Tensor) -> Iterator[Tensor]:
    """The slots where `wanted` holds, a bounded number at a time."""
    slots = torch.nonzero(wanted)[:, 0]
    for start in range(0, len(slots), _SLOTS_AT_ONCE):
        yield slots[start : start + _SLOTS_AT_ONCE]


def _draw(logits: Tensor, draws: Draws) -> Tensor:
    """Draw one token from each row of `logits` [slots, vocabulary]."""
    weights = _weights(logits, draws.temperature)
    vocabulary = weights.shape[1]
    k = torch.where((draws.top_k > 0) & (draws.top_k < vocabulary), draws.top_k, vocabulary)
    filtered = torch.nonzero((k < vocabulary) | (draws.top_p < 1))[:, 0]
    if len(filtered):
        values = logits[filtered]
        ordered = _descending(values)
        running = _weights(ordered, draws.temperature[filtered]).cumsum(-1)
        count = _kept_count(running, k[filtered], draws.top_p[filtered])
        weights[filtered] *= _first_by_rank(values, ordered, count)
    weights *= weights >= draws.min_p[:, None]  # the largest weight is 1
    running = weights.cumsum(-1)
    target = draws.uniform[:, None] * running[:, -1:]
    return torch.searchsorted(running, target, right=True)[:, 0]


def _weights(logits: Tensor, temperature: Tensor) -> Tensor:
    """Probabilities of rows in float64, the largest scaled to 1."""
    wide = logits.double()
    wide -= wide.amax(-1, keepdim=True)
    return wide.div_(temperature[:, None]).exp_()


def _descending(values: Tensor) -> Tensor:
    """The values of each row, largest first."""
    return torch.from_numpy(np.sort(values.numpy(), axis=-1)).flip(-1)


def _kept_count(running: Tensor, k: Tensor, top_p: Tensor) -> Tensor:
    """How many of the heaviest entries top-k, then top-p, keep; `running` sums them in order."""
    total = running.gather(1, k[:, None] - 1)  # top-p sees what top-k left, renormalised
    count = (running < top_p[:, None] * total).sum(-1) + 1
    return torch.where(top_p < 1, count, k)


def _first_by_rank(values: Tensor, ordered: Tensor, count: Tensor) -> Tensor:
    """Mask of the `count` [rows] largest `values` [rows, n], of equal ones the lowest ids.

    `ordered` has the values of each row, largest first.
    """
    last = ordered.gather(1, count[:, None] - 1)
    mask = values >= last
    tied = torch.nonzero(mask.sum(-1) > count)[:, 0]
    if len(tied):
        above, equal = values[tied] > last[tied], values[tied] == last[tied]
        room = count[tied] - above.sum(-1)
        mask[tied] = above | (equal & (equal.cumsum(-1) <= room[:, None]))
    return mask


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
        entries = _rank(logits[rows[chosen]], temperature[chosen], counts[chosen])
        ids.append(entries[0])
        probabilities.append(entries[1])
    starts = np.concatenate([np.zeros(1, np.int32), counts.numpy().cumsum()])
    return Ranking(np.concatenate(ids), np.concatenate(probabilities), starts.astype(np.int32))


def _rank(logits: Tensor, temperature: Tensor, counts: Tensor) -> tuple[Ints, Floats]:
    greedy = temperature == 0
    weights = _weights(logits, torch.where(greedy, 1.0, temperature))
    weights /= weights.cumsum(-1)[:, -1:]
    mask = _first_by_rank(logits, _descending(logits), counts)
    slot, token = mask.nonzero(as_tuple=True)
    order = torch.from_numpy(np.lexsort((token, -logits[slot, token].numpy(), slot.numpy())))
    slot, token = slot[order], token[order]
    probability = weights[slot, token]
    first = torch.cat([torch.ones(1, dtype=torch.bool), slot[1:] != slot[:-1]])
    probability = torch.where(greedy[slot], first.double(), probability)
    return token.to(torch.int32).numpy(), probability.float().numpy()
