"""Which instructions kernels are made of: chosen once, from what the processor has.

`PIE_CPU_TARGET` names another one, for tests and measurements: a processor runs what it has
instructions for, and the portable ones.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from functools import cache

import attrs
import llvmlite.binding as llvm

from pie.errors import UsageError


@attrs.frozen
class Target:
    """A way to emit kernels."""

    name: str
    lanes: int
    """32-bit lanes of the vectors that are emitted."""
    dot: str
    """Instructions of byte products: vnni, maddubs, sdot or portable."""
    bf16: bool
    """Whether pairs of bfloat16 are multiplied by an instruction."""
    needs: frozenset[str] = frozenset()
    """LLVM's names of the features."""
    machine: str = ""
    """`platform.machine()`; empty: any."""

    def lacks(self, features: Mapping[str, bool], machine: str) -> list[str]:
        """What a processor would have to have more, sorted; nothing: it runs there."""
        if self.machine not in ("", machine):
            return [self.machine]
        return sorted(name for name in self.needs if not features.get(name, False))

    def runs_on(self, features: Mapping[str, bool], machine: str) -> bool:
        return not self.lacks(features, machine)


_AVX2 = frozenset({"avx2", "fma", "f16c"})
TARGETS = (
    Target(
        "avx512-bf16",
        16,
        "vnni",
        True,
        frozenset({"avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512bf16"}),
        "x86_64",
    ),
    Target("avx2-vnni", 8, "vnni", False, _AVX2 | {"avxvnni"}, "x86_64"),
    Target("avx2", 8, "maddubs", False, _AVX2, "x86_64"),
    Target("neon-dot", 8, "sdot", False, frozenset({"neon", "dotprod"}), "aarch64"),
    Target("portable16", 16, "portable", True),
    Target("portable8", 8, "portable", False),
)
"""The best first. The portable ones are never chosen by themselves: they exist to run the shape
of the others anywhere."""


def host_features() -> dict[str, bool]:
    """What LLVM says of this processor."""
    return dict(llvm.get_host_cpu_features())


def named(name: str) -> Target:
    """UsageError for a name that is none."""
    for target in TARGETS:
        if target.name == name:
            return target
    names = ", ".join(target.name for target in TARGETS)
    raise UsageError(f"PIE_CPU_TARGET {name!r} is unknown; there are {names}")


@cache
def detect() -> Target | None:
    """The target of this process; None: no packed kernels for this machine.

    UsageError when PIE_CPU_TARGET asks for what this processor cannot run.
    """
    features, machine = host_features(), platform.machine()
    wanted = os.environ.get("PIE_CPU_TARGET", "")
    if wanted:
        target = named(wanted)
        if not target.runs_on(features, machine):
            missing = ", ".join(target.lacks(features, machine))
            raise UsageError(f"PIE_CPU_TARGET {wanted}: this processor has no {missing}")
        return target
    if sys.platform != "linux":  # threads sleep on a futex
        return None
    fitting = (t for t in TARGETS if t.dot != "portable" and t.runs_on(features, machine))
    return next(fitting, None)


def require() -> Target:
    """`detect`, for the modules that exist only where it finds one."""
    target = detect()
    if target is None:
        raise UsageError("this machine has no target that packed kernels are written for")
    return target
