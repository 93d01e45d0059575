"""One line of text for what wasmtime reports in pages."""

from __future__ import annotations

import re
import resource
from pathlib import Path

from pie.config import MIB

_FRAME = re.compile(r"^\s*\d+:\s+0x[0-9a-f]+ - (?P<name>.+)$")
_REASONS = {
    "wasm `unreachable` instruction executed": "it reached an `unreachable` instruction",
    "call stack exhausted": "stack overflow: its calls nest too deep",
    "out of bounds memory access": "it accessed memory out of bounds",
    "integer divide by zero": "it divided an integer by zero",
}
_FRAMES = 3


_TOO_BIG = re.compile(r"memory minimum size of (\d+) pages exceeds memory limits")
_PAGE_BYTES = 1 << 16


def explain(text: str, held_bytes: int, limit_bytes: int) -> str:
    """A line on a guest that trapped while it held so much linear memory."""
    if too_big := _TOO_BIG.search(text):
        return (
            f"the program needs {int(too_big[1]) * _PAGE_BYTES} bytes of linear memory to begin "
            f"with, limits.memory_bytes is {limit_bytes}"
        )
    return trap_line(text) + _memory_note(held_bytes, limit_bytes)


def one_line(text: str) -> str:
    """All of wasmtime's error text but its layout."""
    lines = (re.sub(r"^\d+: ", "", line.strip()) for line in text.splitlines())
    return ": ".join(line for line in lines if line and line != "Caused by:")


def trap_line(text: str) -> str:
    """The reason and the innermost named frames of wasmtime's error text."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    frames = [m["name"] for line in text.splitlines() if (m := _FRAME.match(line))]
    reason = re.sub(r"^(\d+: )?(wasm trap: )?", "", lines[-1]) if lines else "unknown"
    named = list(dict.fromkeys(name for name in frames if "<wasm function" not in name))[:_FRAMES]
    where = f" (in {' < '.join(named)})" if named else ""
    return f"the program trapped: {_REASONS.get(reason, reason)}{where}"


def _memory_note(used: int, limit: int) -> str:
    """What to add to a trap when memory may be why, or nothing.

    wasmtime does not say that a guest failed to grow its memory; it fails by its own means,
    mostly `unreachable`. Allocators grow by at least a tenth of what they hold or in one jump,
    so a guest past half of its limit may have asked for too much.
    """
    if used < limit // 2:
        return ""
    return (
        f"; it held {used / MIB:.1f} MiB of linear memory and may hold at most "
        f"{limit / MIB:.1f} MiB (limits.memory_bytes)"
    )


def writable_bytes() -> int:
    """Bytes of this process that are mapped private and writable, as Linux counts them.

    The difference over deleting a store is the linear memory its guest held: address space
    that is reserved only does not count.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    return pages * resource.getpagesize()
