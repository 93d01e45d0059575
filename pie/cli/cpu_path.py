"""Which path models take on this machine's processor, and why, in words."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator

from pie.config import MIB

SLOWLY = "models run in torch, in float32 and slowly"


def choice() -> tuple[bool, str]:
    """Whether there are packed kernels for this machine, and why these.

    UsageError if PIE_CPU_TARGET asks for what cannot be; ImportError or OSError if llvmlite,
    which must be installed, cannot be used.
    """
    from llvmlite.binding import llvm_version_info

    from pie.kernels.cpu.target import detect

    target = detect()
    if target is None:
        return False, f"{SLOWLY}: {_obstacle()}"
    version = ".".join(str(part) for part in llvm_version_info)
    what = f"models run on packed kernels for {target.name}, compiled by LLVM {version}"
    if os.environ.get("PIE_CPU_TARGET"):
        slow = ", which is for tests and slow" if target.dot == "portable" else ""
        return not slow, f"{what}: PIE_CPU_TARGET asks for it{slow}"
    has = ", ".join(sorted(target.needs))
    return True, "; ".join([f"{what}: it has {has}", *_passed_over(target.name)])


def _obstacle() -> str:
    if sys.platform != "linux":
        return "packed kernels need Linux"
    return "; ".join(_passed_over(None)) or f"there are no packed kernels for {platform.machine()}"


def _passed_over(chosen: str | None) -> Iterator[str]:
    """What each target that is better than the chosen one lacks here."""
    from pie.kernels.cpu.target import TARGETS, host_features

    features, machine = host_features(), platform.machine()
    for target in TARGETS:
        if target.name == chosen:
            return
        lacks = target.lacks(features, machine)
        if target.dot != "portable" and target.machine == machine and lacks:
            yield f"for {target.name} it has no {', '.join(lacks)}"


def machine_code() -> str:
    """Where machine code is kept; UsageError if it cannot be."""
    from pie.kernels.cpu.code_folder import code_folder

    folder = code_folder()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"machine code in {folder}: {size / MIB:.1f} MiB"
