"""Paged attention over ragged batches, bit-invariant in everything but the row itself.

Query rows of one pass are cut into *tiles* that share a gather of the pass's slots; tiles of like
length are computed together as a *group*. Keys are reduced in blocks of `BLOCK` slots that start
at slot 0, in ascending order, and every block product has the same sizes but for its aligned
number of rows. Slots that a row cannot see get weight zero, and adding zero changes nothing;
where the value of such a slot is not finite, it is taken out first. So a row's result is the same
in a tile of one or of sixteen, in a short or a long group, with the history written by one pass
or by many. In a layer with a window the blocks that no row of a tile sees are left out: the same
as adding zeros.
"""

from __future__ import annotations

import math

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pie.batch import Batch

from .blocks import aligned, soft_cap
from .config import PAGE_SIZE, LlamaConfig
from .kv import KVCache

BLOCK = 4 * PAGE_SIZE
"""Slots of one step of the reduction: long enough for a product, short enough to pad to."""

TILE_ROWS = 16
"""Query rows of a tile of a longer pass; passes of one row have tiles of one."""

GROUP_SLOTS = 8192
"""Most slots gathered at once, so that a layer's gathered K and V stay near the caches."""

Longs = NDArray[np.int64]


@attrs.frozen(eq=False)
class Group:
    """Tiles that are computed together, with all that is the same in every layer."""

    rows: Tensor
    """[tiles * tile_rows] batch row of each query, the first again where a tile is not full."""
    real: Tensor
    """Where in `rows` the queries that exist are."""
    tiles: int
    tile_rows: int
    slots: int
    """Slots gathered for each tile, a multiple of BLOCK."""
    index: Tensor
    """[kv_heads * tiles * slots] flat index of the slots in the cache."""
    hidden: Tensor
    """[tiles, tile_rows, 1, slots] True where the query does not see the slot."""


def plan(batch: Batch, cache: KVCache, window: int = 0) -> list[Group]:
    """Cut a batch into groups, for layers in which a row sees `window` slots, or all if 0."""
    starts = batch.row_starts.astype(np.int64)
    counts = np.diff(starts)
    single = counts == 1
    masks = _hidden_rows(batch)
    groups: list[Group] = []
    for tile_rows, passes in ((1, np.flatnonzero(single)), (TILE_ROWS, np.flatnonzero(counts > 1))):
        per_pass = -(-counts[passes] // tile_rows)
        owner = np.repeat(passes, per_pass)
        first = starts[owner] + tile_rows * _count_within(per_pass)
        last = np.minimum(first + tile_rows, starts[owner + 1]) - 1
        behind = batch.lengths[owner] - starts[owner + 1]  # slot of row r is behind + r
        padded = -(-(behind + last + 1) // BLOCK) * BLOCK - _first_slot(behind + first, window)
        order = np.argsort(padded, kind="stable")
        groups += [
            _group(
                batch, cache, masks, owner[chosen], first[chosen], last[chosen], tile_rows, window
            )
            for chosen in _cut(order, padded[order])
        ]
    return groups


def _count_within(counts: Longs) -> Longs:
    """0 .. n-1 for each n of `counts`, one after the other."""
    ends = np.cumsum(counts)
    return np.arange(counts.sum()) - np.repeat(ends - counts, counts)


def _cut(order: Longs, padded: Longs) -> list[Longs]:
    """Split tiles, shortest first, so that a group gathers at most GROUP_SLOTS or has one tile."""
    cuts, start = [], 0
    for i in range(1, len(order) + 1):
        if i == len(order) or (i + 1 - start) * padded[i] > GROUP_SLOTS:
            cuts.append(order[start:i])
            start = i
    return cuts


def _first_slot(slot: Longs, window: int) -> Longs:
    """Where the first block begins that a row at `slot` sees."""
    return np.maximum(slot + 1 - window, 0) // BLOCK * BLOCK if window else np.zeros_like(slot)


def _group(
    batch: Batch,
    cache: KVCache,
    masks: tuple[Longs, NDArray[np.bool_]],
    owner: Longs,
    first: Longs,
    last: Longs,
    tile_rows: int,
    window: int,
) -> Group:
    ends = batch.row_starts.astype(np.int64)[owner + 1]
    behind = batch.lengths[owner].astype(np.int64) - ends  # slot of row r is behind + r
    row = first[:, None] + np.arange(tile_rows)  # [tiles, tile_rows]
    real = row <= last[:, None]
    row = np.where(real, row, first[:, None])
    seen = behind + last + 1
    begin = _first_slot(behind + first, window)
    slots = int(-(-(seen - begin).max() // BLOCK) * BLOCK)
    slot = begin[:, None] + np.arange(slots)  # [tiles, slots]
    page = np.minimum(slot // PAGE_SIZE, (-(-seen // PAGE_SIZE) - 1)[:, None])
    physical = batch.pages[batch.page_starts[owner][:, None] + page].astype(np.int64)
    physical = physical * PAGE_SIZE + slot % PAGE_SIZE
    physical = np.where(slot < seen[:, None], physical, cache.nowhere)
    own = (behind[:, None] + row)[:, :, None]
    hidden = slot[:, None] > own
    if window:
        hidden |= slot[:, None] <= own - window
    mask_of_row, masked = masks
    if masked.size:
        chosen = mask_of_row[row][:, :, None]
        told = np.minimum(slot, masked.shape[1] - 1)[:, None]
        hidden |= masked[chosen, told] & (chosen >= 0) & (slot < masked.shape[1])[:, None]
    return Group(
        rows=torch.from_numpy(row.reshape(-1)),
        real=torch.from_numpy(np.flatnonzero(real)),
        tiles=len(owner),
        tile_rows=tile_rows,
        slots=slots,
        index=cache.flat_index(torch.from_numpy(physical.reshape(-1))),
        hidden=torch.from_numpy(hidden)[:, :, None],
    )


def _hidden_rows(batch: Batch) -> tuple[Longs, NDArray[np.bool_]]:
    """BRLE rows as booleans: which mask each row has (-1: none), and the masks [n, slots].

    Runs alternate attend, hide, attend, ... and cover the visible slots of their row.
    """
    mask_of_row = np.full(batch.rows, -1, dtype=np.int64)
    count = len(batch.masked_rows)
    mask_of_row[batch.masked_rows] = np.arange(count)
    starts = batch.mask_starts.astype(np.int64)
    runs = batch.mask_runs.astype(np.int64)
    hides = _count_within(np.diff(starts)) % 2 == 1
    flat = np.repeat(hides, runs)
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(runs)])[starts]
    lengths = np.diff(ends)
    hidden = np.zeros((count, int(lengths.max(initial=0))), dtype=np.bool_)
    hidden[np.repeat(np.arange(count), lengths), _count_within(lengths)] = flat
    return mask_of_row, hidden


def attend(
    queries: Tensor, cache: KVCache, layer: int, groups: list[Group], config: LlamaConfig
) -> Tensor:
    """Attention of `queries` [rows, heads, head_dim] over their pages: [rows, heads * head_dim].

    K and V of the batch are already in the cache. A row that sees nothing gets zeros.
    """
    out = torch.zeros_like(queries)
    scaled = queries * config.query_scale
    for group in groups:
        found = _attend_group(scaled, cache, layer, group, config)
        out.index_copy_(0, group.rows[group.real], found[group.real])
    return out.flatten(1)


def _attend_group(
    scaled: Tensor, cache: KVCache, layer: int, group: Group, config: LlamaConfig
) -> Tensor:
    """[tiles * tile_rows, heads, head_dim] for the queries of a group."""
    tiles, kv, dim = group.tiles, config.kv_heads, config.head_dim
    keys, values = (x.view(kv * tiles, group.slots, dim) for x in cache.read(layer, group.index))
    # One product row per query and head of its group, padded: [kv * tiles, queries, dim].
    used = group.tile_rows * config.group
    queries = scaled.new_zeros(kv, tiles, aligned(used), dim)
    picked = scaled[group.rows].view(tiles, group.tile_rows, kv, config.group, dim)
    queries[:, :, :used] = picked.permute(2, 0, 1, 3, 4).reshape(kv, tiles, used, dim)
    queries = queries.view(kv * tiles, aligned(used), dim)

    scores = soft_cap(torch.bmm(queries, keys.transpose(1, 2)), config.attention_cap)
    per_query = (kv, tiles, group.tile_rows, config.group)
    visible = scores.view(kv, tiles, -1, group.slots)[:, :, :used]
    visible.view(*per_query, group.slots).masked_fill_(group.hidden, -math.inf)
    highest = scores.amax(-1, keepdim=True)
    weights = scores.sub_(highest.masked_fill_(highest == -math.inf, 0.0)).exp_()

    result = _weigh(weights, values)
    # A weight of zero does not silence a value that is not finite.
    if not math.isfinite(result.sum().item()):
        broken = ~values.isfinite().all(-1)  # [kv * tiles, slots]
        result = _weigh(weights, values.masked_fill(broken[:, :, None], 0.0))
        seen = ~group.hidden & broken.view(kv, tiles, 1, 1, group.slots)
        per_row = result.view(kv, tiles, -1, dim)[:, :, :used].view(*per_query, dim)
        per_row.masked_fill_(seen.any(-1)[..., None], math.nan)
    result = result.view(kv, tiles, -1, dim)[:, :, :used].view(*per_query, dim)
    result = result.permute(1, 2, 0, 3, 4)
    return result.reshape(tiles * group.tile_rows, kv * config.group, dim)


def _weigh(weights: Tensor, values: Tensor) -> Tensor:
    """Means of `values` [n, slots, dim] by `weights` [n, queries, slots]; zeros without weight."""
    total = weights.new_zeros(*weights.shape[:2], 1)
    result = weights.new_zeros(*weights.shape[:2], values.shape[2])
    for start in range(0, weights.shape[2], BLOCK):
        block = weights[:, :, start : start + BLOCK]
        total += block.sum(-1, keepdim=True)
        result.baddbmm_(block, values[:, start : start + BLOCK])
    return result.div_(total.masked_fill_(total == 0.0, 1.0))
