"""Where the peers are."""

from __future__ import annotations

from pathlib import Path

PEERS = (Path(__file__).parents[3] / ".build").resolve() / "peers"
"""Resolved: a build folder remembers by which path it was made."""


def why_missing(name: str, needed: Path) -> str | None:
    """None if `needed` is there, else what is known of it."""
    if needed.exists():
        return None
    note = PEERS / name / "failed"
    return note.read_text().strip() if note.exists() else "not installed: make bench-peers"
