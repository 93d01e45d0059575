"""Which of a user's uploads make room for another one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pie.errors import UsageError

from .library_tables import Entry, Held

BLOCK = 4096
"""Bytes. A content counts as a multiple of it, as on a disk, and a name as one."""


def make_room(held: Sequence[Held], entries: Sequence[Entry], new: str, limit: int) -> list[str]:
    """The hashes that a user's uploads lose, so that what stays counts at most `limit` bytes.

    `held` begins with the least recently used. First go those without a name, then those with
    names of older versions only. The newest version of each name stays, and `new` does: UsageError
    if that is too much.
    """
    names = Counter(entry.hash for entry in entries)
    costs = {each.hash: _cost(each.size, names[each.hash]) for each in held}
    total = sum(costs.values())
    lost = []
    for victim in _droppable(held, entries, new):
        if total <= limit:
            break
        lost.append(victim)
        total -= costs[victim]
    if total > limit:
        raise UsageError(
            f"quota stored_bytes: this program and the newest version of each other one that you "
            f"have named are {total} bytes, at most {limit} are kept"
        )
    return lost


def _cost(size: int, names: int) -> int:
    return (-(-size // BLOCK) + names) * BLOCK


def _droppable(held: Sequence[Held], entries: Sequence[Entry], new: str) -> list[str]:
    newest: dict[str, Entry] = {}
    for entry in entries:
        best = newest.setdefault(entry.base, entry)
        if best.version < entry.version:
            newest[entry.base] = entry
    kept = {entry.hash for entry in newest.values()} | {new}
    named = {entry.hash for entry in entries}
    free = [each.hash for each in held if each.hash not in kept]
    return sorted(free, key=named.__contains__)
