"""Products of packed matrices on one core of the CPU.

    python -m benchmarks.kernels [--quick] [--json OUT]

For each kind and number of rows: GMAC/s (10 ** 9 multiplications and additions a second) with a
matrix of 3,072 x 576 that stays in the caches, and with 192 MB of them one after the other, read
from memory. The latter also as a share of the most bytes a second that a loop which only reads
got, run in between. Every figure is the best of many short tries: other work on the machine
disturbs some.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from pie.kernels.cpu.emit import Emit, Value, const
from pie.kernels.cpu.layout import BLOCK, Kind, packed_bytes
from pie.kernels.cpu.library import load
from pie.kernels.cpu.matmul import gemm
from pie.kernels.cpu.rows import form_of, quantise, row_bytes

OUTPUTS, INPUTS = 3072, 576
BLOCKS = OUTPUTS // BLOCK
STREAMED = 192 << 20
"""Bytes, several times what caches hold."""

PART = 8
"""Streamed matrices that are timed together."""

ROWS = (1, 2, 4, 8, 32)
_PIECE = 512
"""Bytes that the reading loop takes at once."""


def _read(e: Emit, data: Value, pieces: Value, out: Value) -> None:
    """Exclusive or of all vectors, with what is further on asked for as the products do."""

    def piece(i: Value, sums: list[Value]) -> list[Value]:
        at = e.at(data, i, _PIECE)
        for line in range(0, _PIECE, 64):
            e.prefetch(at, 4096 + line)
        width = 4 * e.lanes
        values = [e.load(e.I, at, offset) for offset in range(0, _PIECE, width)]
        for index, value in enumerate(values):
            sums = list(sums)
            sums[index % len(sums)] = e.b.xor(sums[index % len(sums)], value)
        return sums

    for total in e.loop(pieces, [const(e.I, 0)] * 4, piece):
        e.store(total, out)


def best(works: Iterable[Callable[[], None]]) -> float:
    """Seconds of the fastest."""
    seconds = []
    for work in works:
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


class Bench:
    """Matrices, rows and outputs for one kind."""

    def __init__(self, kind: Kind, rng: np.random.Generator) -> None:
        self.kind, self.size = kind, packed_bytes(kind, OUTPUTS, INPUTS)
        self.width = row_bytes(form_of(kind), INPUTS)
        self.copies = STREAMED // self.size
        # Any bytes below 0x40 are codes, and halves and bfloat16 that are small numbers.
        some = rng.integers(0, 60, 65521, dtype=np.uint8)
        self.data = np.resize(some, self.copies * self.size + 64)
        self.rows = np.zeros(max(ROWS) * self.width + 64, np.uint8)
        self.out = np.zeros((max(ROWS), OUTPUTS), np.float32)
        x = rng.standard_normal(INPUTS).astype(np.float32)
        for row in range(max(ROWS)):
            at = _aligned(self.rows) + row * self.width
            quantise(form_of(kind), x.ctypes.data, at, INPUTS, 0, INPUTS // 32)
        self.weights, self.x = _aligned(self.data), _aligned(self.rows)
        self.to = self.out.ctypes.data

    def multiply(self, rows: int, first: int, count: int) -> None:
        """Some of the matrices, one after the other."""
        for i in range(first, first + count):
            weights = self.weights + i * self.size
            gemm(self.kind, weights, BLOCKS, self.x, INPUTS, rows, self.to, 4 * OUTPUTS, 0)

    def measure(self, rows: int, tries: int) -> dict[str, Any]:
        macs = OUTPUTS * INPUTS * rows
        cached = best([partial(self.multiply, rows, 0, 1)] * 10 * tries)
        parts = range(0, self.copies - PART + 1, PART)
        streamed = best([partial(self.multiply, rows, first, PART) for first in parts] * tries)
        return {
            "kind": self.kind.name,
            "rows": rows,
            "cached_gmacs": macs / cached / 1e9,
            "streamed_gmacs": PART * macs / streamed / 1e9,
            "gb_per_s": PART * self.size / streamed / 1e9,
        }


def _aligned(data: NDArray[np.uint8]) -> int:
    return int(data.ctypes.data) + -int(data.ctypes.data) % 64


def peak(tries: int) -> float:
    """Bytes a second that one core reads."""
    source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    (read,) = load(f"benchmark-{source}", {"read": _read})  # the cache knows the package alone
    data, out, size = np.ones(STREAMED, np.uint8), np.zeros(64, np.uint8), 8 << 20
    starts = range(data.ctypes.data, data.ctypes.data + STREAMED, size)
    works = [partial(read, start, size // _PIECE, out.ctypes.data) for start in starts]
    return size / best(works * tries)


def run(tries: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    results, peaks = [], []
    for kind in Kind:
        bench = Bench(kind, rng)
        peaks.append(peak(tries))
        results += [bench.measure(rows, tries) for rows in ROWS]
    highest = max(peaks) / 1e9
    return [result | {"share_of_peak": result["gb_per_s"] / highest} for result in results]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds; means little")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = run(1 if options.quick else 8)
    columns = ("kind", "rows", "cached_gmacs", "streamed_gmacs", "gb_per_s", "share_of_peak")
    table = Table(*columns, title="Packed products, one core")
    for result in results:
        values = (result[name] for name in columns)
        table.add_row(*(f"{v:.2f}" if isinstance(v, float) else str(v) for v in values))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
