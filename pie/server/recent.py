"""Programs in memory: those launched lately, and those that run."""

from __future__ import annotations

from collections import OrderedDict
from weakref import WeakValueDictionary

import attrs

from pie.config import MIB
from pie.guest.wasm import Program

_LEAST = 1 * MIB
"""What even the smallest counts as: its links to the host take some."""


@attrs.define(eq=False)
class RecentPrograms:
    """By hash; the least recently used are let go when the components have more than `limit` bytes.

    Machine code takes about twice that, of memory that the system can take back.
    """

    limit: int
    _recent: OrderedDict[str, tuple[Program, int]] = attrs.field(factory=OrderedDict)
    _alive: WeakValueDictionary[str, Program] = attrs.field(factory=WeakValueDictionary)
    """Also those that were let go and still run."""
    _total: int = 0

    def get(self, key: str) -> Program | None:
        """One that is in memory; it is the most recent then."""
        if key in self._recent:
            self._recent.move_to_end(key)
        return self._alive.get(key)

    def put(self, key: str, program: Program, size: int) -> None:
        """Keep one whose component has `size` bytes; the newest is kept in any case."""
        self._alive[key] = program
        size = max(size, _LEAST)
        self._recent[key] = program, size
        self._total += size
        while self._total > self.limit and len(self._recent) > 1:
            _, (_, oldest) = self._recent.popitem(last=False)
            self._total -= oldest
