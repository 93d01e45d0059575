"""What users and their keys may be called."""

from __future__ import annotations

from pie.errors import UsageError

INTERNAL = "internal"
"""Whoever has the server's token; no client can claim to be it."""
MAX_NAME = 128


def check_name(name: str, what: str = "a user name") -> None:
    """UsageError unless it may name a user or, if `what` says so, a key.

    The text does not repeat the name, which may be anything, even a key that was pasted.
    """
    rule = f"{what} is 1 to {MAX_NAME} printable characters with no blank at either end"
    if not 1 <= len(name) <= MAX_NAME:
        raise UsageError(f"{rule}, not {len(name)} characters")
    for place, character in enumerate(name, 1):
        if not character.isprintable():
            raise UsageError(f"{rule}; character {place} is U+{ord(character):04X}")
    if name != name.strip():
        raise UsageError(f"{rule}; one is there")


def check_user(name: str) -> None:
    """UsageError unless a client may have this name."""
    check_name(name)
    if name == INTERNAL:
        raise UsageError(f"the user name '{INTERNAL}' is the server's own")
