"""Paged K and V in memory, attention over them by the kernels, and by float64 arithmetic."""

from __future__ import annotations

from typing import Any, TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.kernels.cpu import attention, pages, pages8, rope
from pie.kernels.cpu.lines import Form

Floats: TypeAlias = NDArray[np.float32]
Bools: TypeAlias = NDArray[np.bool_]


def aligned(size: int) -> NDArray[np.uint8]:
    """`size` bytes at a multiple of 64, none of them zero: what is not written shows."""
    data = np.full(size + 64, 0xFF, dtype=np.uint8)
    start = -data.ctypes.data % 64
    return data[start : start + size]


def address(array: NDArray[Any]) -> int:
    return int(array.ctypes.data)


def to_bfloat(x: Floats) -> Floats:
    """Rounded to bfloat16, halves to even."""
    bits = x.view(np.uint32).astype(np.int64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return rounded.astype(np.uint32).view(np.float32)


def to_bytes(x: Floats) -> Floats:
    """Rounded to 127 steps of the largest of the last axis."""
    step = np.abs(x).max(-1, keepdims=True) / np.float32(127)
    result: Floats = np.rint(x / np.where(step == 0, 1, step)) * step
    return result


@attrs.define(eq=False)
class Case:
    """A layer of a pass: `keys`, `values` [slots, kv_heads, dim], `queries` [rows, heads, dim]."""

    keys: Floats
    values: Floats
    queries: Floats
    window: int = 0
    soft_cap: float = 0.0
    masks: dict[int, Bools] = attrs.Factory(dict)
    """Of some rows: what they see [slots]."""
    scale: float = 0.0
    form: Form = Form.BF16
    table: NDArray[np.int32] = attrs.field(init=False)
    memory: NDArray[np.uint8] = attrs.field(init=False)
    bits: dict[int, NDArray[np.uint16]] = attrs.Factory(dict)

    @classmethod
    def random(
        cls, seed: int, slots: int, rows: int, dim: int, kv: int, group: int, **more: Any
    ) -> Case:
        """Rows are the last ones of `slots`."""
        random = np.random.default_rng(seed)

        def normal(*shape: int) -> Floats:
            return random.standard_normal(shape, dtype=np.float32)

        case = cls(normal(slots, kv, dim), normal(slots, kv, dim), normal(rows, kv * group, dim))
        for name, value in more.items():
            setattr(case, name, value)
        case.fill(random.permutation(-(-slots // 16) + 3).astype(np.int32))
        return case

    @property
    def dim(self) -> int:
        return int(self.keys.shape[2])

    @property
    def kv_heads(self) -> int:
        return int(self.keys.shape[1])

    @property
    def heads(self) -> int:
        return int(self.queries.shape[1])

    @property
    def group(self) -> int:
        return self.heads // self.kv_heads

    @property
    def page_size(self) -> int:
        return pages.page_bytes(1, self.kv_heads, self.dim, self.form)

    def fill(self, table: NDArray[np.int32]) -> None:
        """Write K and V into pages with these physical numbers; one behind the last slot too."""
        self.table = table
        self.memory = aligned((int(table.max()) + 1) * self.page_size)
        self.memory[:] = 0
        size = pages.head_bytes(self.dim, self.form)
        store_key, store_value = pages.store_key, pages.store_value
        if self.form == Form.INT8:
            store_key, store_value = pages8.store_key8, pages8.store_value8
        for slot in range(len(self.keys)):
            page = address(self.memory) + int(table[slot // 16]) * self.page_size
            for head in range(self.kv_heads):
                key, value = self.keys[slot, head], self.values[slot, head]
                place = page + head * size
                store_key(address(key), 0, place, slot % 16, self.dim)
                store_value(address(value), place, slot % 16, self.dim)
        for row, seen in self.masks.items():
            padded = np.pad(seen, (0, -len(seen) % 16)).reshape(-1, 16)
            self.bits[row] = (padded << np.arange(16)).sum(1).astype(np.uint16)

    def _prepared(self) -> NDArray[np.uint8]:
        size = rope.query_bytes(self.dim)
        prepared = aligned(self.queries[:, :, 0].size * size)
        scale = self.scale or self.dim**-0.5
        store_query = pages8.store_query8 if self.form == Form.INT8 else rope.store_query
        flat = self.queries.reshape(-1, self.dim)
        for i in range(len(flat)):
            out = address(prepared) + i * size
            store_query(address(flat[i]), 0, out, self.dim, scale)
        return prepared

    def _mask_addresses(self) -> NDArray[np.int64]:
        rows = range(len(self.queries))
        found = [address(self.bits[row]) if row in self.bits else 0 for row in rows]
        return np.array(found, dtype=np.int64)

    def run(self, first: int = 0, rows: int = 0) -> Floats:
        """Attention of some rows, by default all: [rows, heads, dim]."""
        rows = rows or len(self.queries) - first
        prepared, masks = self._prepared(), self._mask_addresses()
        out = np.full((rows, self.heads, self.dim), np.nan, dtype=np.float32)
        scratch = aligned(attention.scratch_bytes(self.dim))
        size = rope.query_bytes(self.dim)
        for head in range(self.kv_heads):
            place = first * self.heads + head * self.group
            attention.attend_rows(
                address(prepared) + place * size,
                address(out) + head * self.group * 4 * self.dim,
                rows,
                self.heads,
                self.group,
                self.dim,
                self.limit(first),
                self.window,
                address(masks[first:]) if self.masks else 0,
                address(self.table),
                address(self.memory) + head * pages.head_bytes(self.dim, self.form),
                self.page_size,
                self.soft_cap,
                address(scratch),
                int(self.form),
            )
        return out

    def run_split(self, row: int, order: list[int]) -> Floats:
        """Attention of one row [heads, dim], its segments computed in this order."""
        prepared, masks = self._prepared(), self._mask_addresses()
        out = np.full((self.heads, self.dim), np.nan, dtype=np.float32)
        limit, size = self.limit(row), rope.query_bytes(self.dim)
        scratch = aligned(attention.scratch_bytes(self.dim))
        assert len(order) == attention.segments(limit)
        for head in range(self.kv_heads):
            partials = aligned(self.group * len(order) * attention.partial_bytes(self.dim))
            for segment in order:
                attention.attend_segment(
                    address(prepared) + (row * self.heads + head * self.group) * size,
                    address(partials),
                    self.group,
                    self.dim,
                    limit,
                    self.window,
                    int(masks[row]),
                    address(self.table),
                    address(self.memory) + head * pages.head_bytes(self.dim, self.form),
                    self.page_size,
                    self.soft_cap,
                    segment,
                    address(scratch),
                    int(self.form),
                )
            place = out[head * self.group :]
            attention.combine(address(partials), address(place), self.group, self.dim, limit)
        return out

    def limit(self, row: int) -> int:
        """Slots that a row may see."""
        return len(self.keys) - len(self.queries) + 1 + row

    def seen(self, row: int) -> Bools:
        """What a row sees [slots]."""
        slot, limit = np.arange(len(self.keys)), self.limit(row)
        seen = slot < limit
        if self.window:
            seen &= slot >= limit - self.window
        if row in self.masks:
            seen &= self.masks[row][: len(slot)]
        return seen

    def expected(self) -> NDArray[np.float64]:
        """[rows, heads, dim] in float64, of K and V as pages hold them."""
        rounded = to_bytes if self.form == Form.INT8 else to_bfloat
        return self.exactly(rounded(self.keys), rounded(self.values))

    def exactly(self, keys: NDArray[Any], values: NDArray[Any]) -> NDArray[np.float64]:
        """[rows, heads, dim] in float64, of these K and V."""
        keys = keys.astype(np.float64).repeat(self.group, axis=1)
        values = values.astype(np.float64).repeat(self.group, axis=1)
        scores = np.einsum("rhd,shd->rhs", self.queries.astype(np.float64), keys)
        scores *= self.scale or self.dim**-0.5
        if self.soft_cap:
            scores = self.soft_cap * np.tanh(scores / self.soft_cap)
        hidden = ~np.stack([self.seen(row) for row in range(len(self.queries))])
        scores[np.broadcast_to(hidden[:, None], scores.shape)] = -np.inf
        top = scores.max(-1, keepdims=True)
        weights = np.exp(scores - np.where(np.isfinite(top), top, 0.0))
        total = weights.sum(-1, keepdims=True)
        weights /= np.where(total == 0.0, 1.0, total)
        result: NDArray[np.float64] = np.einsum("rhs,shd->rhd", weights, values)
        return result
