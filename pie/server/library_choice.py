"""Which of several versions a name means, and how many of them a message shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .library_tables import EVERYBODY, Entry
from .program_names import ProgramName, Version

_MOST_LISTED = 12


def choose(name: ProgramName, entries: Sequence[Entry]) -> Entry | None:
    """Of entries with this namespace and name."""
    fitting = [e for e in entries if name.version is None or e.version == name.version]
    return max(fitting, key=preference, default=None)


def preference(entry: Entry) -> tuple[Version, bool]:
    """Of several, the newest, and of equal versions the user's own."""
    return entry.version, entry.owner != EVERYBODY


def few(texts: Iterable[str]) -> str:
    """Some of them, and how many more there are."""
    listed = list(texts)
    more = len(listed) - _MOST_LISTED
    return ", ".join(listed[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
