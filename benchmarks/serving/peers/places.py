"""Where the peers are."""

from __future__ import annotations

from pathlib import Path

PEERS = (Path(__file__).parents[3] / ".build").resolve() / "peers"
"""Resolved: a build folder remembers by which path it was made."""


def folder_of(name: str) -> Path:
    return PEERS / name


def installed(name: str) -> Path:
    """The mark of a peer whose installation went to its end."""
    return folder_of(name) / "installed"


def failed(name: str) -> Path:
    """Where the reason is if it did not."""
    return folder_of(name) / "failed"


def why_missing(name: str) -> str | None:
    """None if the peer is there, else what is known of it."""
    if installed(name).exists():
        return None
    note = failed(name)
    return note.read_text().strip() if note.exists() else "not installed: make bench-peers"
