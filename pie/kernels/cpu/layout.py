"""How weights lie in memory: packed once at load, read as whole vectors by every product.

A matrix of [outputs, inputs] is cut into *blocks* of `BLOCK` outputs, one after the other; the
last one is filled up with zeros. Within a block, *groups* of `GROUP` inputs follow each other.
The codes of a group are 64-byte lines, each with 4 neighbouring inputs of 16 outputs
([output][input]), which is what four-way byte products take.

* `Q4`, value d * q + m: 4 lines; line j has inputs 4j .. 4j+3 in the low nibbles and 16 more in
  the high ones. d and m (16 halves each) follow the lines of their group: 320 bytes a group.
* `Q8`, value d * q with q signed: 8 lines; line j has inputs 4j .. 4j+3. The d of all groups
  follow the last group, so that lines stay aligned: 512 + 32 bytes a group.
* `Q8M`, value d * q + m: as Q8, with the m of all groups after the d: 512 + 64 bytes a group.
* `BF16`: 16 lines a group; line j has inputs 2j and 2j+1 of 16 outputs: 1,024 bytes a group.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

BLOCK = 16
"""Outputs of a block."""

GROUP = 32
"""Inputs that share a scale."""

PAGE_SIZE = 16
"""Tokens of a KV page."""

Bytes: TypeAlias = NDArray[np.uint8]
Halves: TypeAlias = NDArray[np.float16]


class Kind(IntEnum):
    """How a matrix is packed; the numbers are what kernels switch on."""

    Q4 = 0
    Q8 = 1
    Q8M = 2
    BF16 = 3


GROUP_BYTES = {Kind.Q4: 320, Kind.Q8: 544, Kind.Q8M: 576, Kind.BF16: 1024}


def blocks_of(outputs: int) -> int:
    """Blocks that `outputs` fill."""
    return -(-outputs // BLOCK)


def block_bytes(kind: Kind, inputs: int) -> int:
    """Bytes of one block of a matrix with `inputs` columns, a multiple of GROUP."""
    return inputs // GROUP * GROUP_BYTES[kind]


def packed_bytes(kind: Kind, outputs: int, inputs: int) -> int:
    """Bytes of a whole packed matrix."""
    return blocks_of(outputs) * block_bytes(kind, inputs)


@attrs.frozen(eq=False)
class Packed:
    """A packed matrix: `data` [packed_bytes], best 64-byte aligned."""

    kind: Kind
    outputs: int
    inputs: int
    data: Bytes


def pack_q4(codes: Bytes, scales: Halves, minima: Halves) -> Bytes:
    """Codes 0 .. 15 [outputs, inputs] with scales and minima [outputs, inputs / 32], packed."""
    lines = _lines(codes, 4)  # [blocks, groups, 8 lines, 64]
    nibbles = lines[:, :, :4] | (lines[:, :, 4:] << 4)
    flat = nibbles.reshape(*nibbles.shape[:2], 256)
    parts = [flat, _per_group(scales).view(np.uint8), _per_group(minima).view(np.uint8)]
    return np.concatenate(parts, axis=2).reshape(-1)


def pack_q8(codes: NDArray[np.int8], scales: Halves, minima: Halves | None = None) -> Bytes:
    """Signed codes [outputs, inputs] with scales [outputs, inputs / 32]; with minima Q8M."""
    lines = _lines(codes.view(np.uint8), 4)
    tails = [scales] if minima is None else [scales, minima]
    halves = [_per_group(tail).view(np.uint8).reshape(len(lines), -1) for tail in tails]
    return np.concatenate([lines.reshape(len(lines), -1), *halves], axis=1).reshape(-1)


def pack_bf16(values: NDArray[np.uint16]) -> Bytes:
    """The upper halves of float32 bits [outputs, inputs], packed."""
    return _lines(values, 2).view(np.uint8).reshape(-1)


def unpack(packed: Packed) -> NDArray[np.float32]:
    """The values [outputs, inputs] of a packed matrix; for tests and rare uses."""
    blocks, groups = blocks_of(packed.outputs), packed.inputs // GROUP
    data = packed.data.reshape(blocks, -1)
    match packed.kind:
        case Kind.BF16:
            bits = _unlines(data.view(np.uint16).reshape(blocks, groups, 16, BLOCK, 2))
            values = (bits.astype(np.uint32) << 16).view(np.float32)
        case Kind.Q4:
            group = data.reshape(blocks, groups, 320)
            nibbles = group[:, :, :256].reshape(blocks, groups, 4, BLOCK, 4)
            codes = _unlines(np.concatenate([nibbles & 15, nibbles >> 4], axis=2))
            halves = np.ascontiguousarray(group[:, :, 256:]).view(np.float16)
            values = codes * _spread(halves[:, :, :16]) + _spread(halves[:, :, 16:])
        case _:
            codes = _unlines(data[:, : groups * 512].reshape(blocks, groups, 8, BLOCK, 4))
            halves = np.ascontiguousarray(data[:, groups * 512 :]).view(np.float16)
            halves = halves.reshape(blocks, -1, groups, BLOCK)
            values = codes.view(np.int8) * _spread(halves[:, 0])
            if packed.kind is Kind.Q8M:
                values = values + _spread(halves[:, 1])
    return np.ascontiguousarray(values[: packed.outputs], dtype=np.float32)


def _fill(values: NDArray[Any]) -> NDArray[Any]:
    """`values` with rows of zeros up to a whole number of blocks."""
    missing = -len(values) % BLOCK
    return np.pad(values, ((0, missing), (0, 0))) if missing else values


def _lines(codes: NDArray[Any], width: int) -> NDArray[Any]:
    """[outputs, inputs] to [blocks, groups, lines, BLOCK * width], `width` inputs a line."""
    codes = _fill(codes)
    shape = (len(codes) // BLOCK, BLOCK, codes.shape[1] // GROUP, GROUP // width, width)
    lines = codes.reshape(shape).transpose(0, 2, 3, 1, 4)
    return np.ascontiguousarray(lines).reshape(*lines.shape[:3], BLOCK * width)


def _unlines(lines: NDArray[Any]) -> NDArray[Any]:
    """[blocks, groups, lines, BLOCK, width] back to [outputs, inputs]."""
    blocks, groups, count, _, width = lines.shape
    rows = lines.transpose(0, 3, 1, 2, 4)
    return np.ascontiguousarray(rows).reshape(blocks * BLOCK, groups * count * width)


def _per_group(halves: Halves) -> Halves:
    """[outputs, groups] to [blocks, groups, BLOCK]."""
    halves = _fill(halves)
    cut = halves.reshape(len(halves) // BLOCK, BLOCK, -1).transpose(0, 2, 1)
    return np.ascontiguousarray(cut, dtype=np.float16)


def _spread(halves: Halves) -> NDArray[np.float32]:
    """[blocks, groups, BLOCK] to a factor for each of [outputs, inputs]."""
    rows = halves.astype(np.float32).transpose(0, 2, 1).reshape(-1, halves.shape[1])
    return np.repeat(rows, GROUP, axis=1)
