"""What the figures were measured on: ratios mean something per kind of machine only."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from benchmarks.host.__main__ import machine as plain_facts
from benchmarks.host.machine import Row

_TELLING = (
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)
"""Features that decide which kernels an engine takes."""


def features() -> frozenset[str]:
    """All features of the processor, by the names that Linux gives them."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, rest = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(rest.split())
    return frozenset()


def facts(cores: tuple[int, ...]) -> Row:
    """The machine, and what of it is used."""
    plain, there = plain_facts(), features()
    del plain["load_before"]  # of a moment, and not of the machine
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        **plain,
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "features": [name for name in _TELLING if name in there],
        "memory_gib": round(memory / (1 << 30), 1),
        "used_cores": list(cores),
    }
