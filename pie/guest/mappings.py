"""How many guests fit into the process: each needs memory mappings, whose number is limited.

Past the limit mmap fails in the whole process, which nothing survives. What a guest needs depends
on its program (4 for a hand-written component, up to 7 for a Python one), so guests are taken for
the most hungry kind until that fills the process; then its mappings are counted.
"""

from __future__ import annotations

from pathlib import Path

import attrs
import trio

from pie.errors import UsageError
from pie.offload import Offload

MOST = 7
"""Mappings of a live Python guest, the most hungry kind measured."""
LEAST = 5
"""Of the smallest guest, and one more, which any guest may get when its memory grows."""
KEPT = 8192
"""Left to the rest of the process: libraries, threads, models, allocator arenas."""
_WORTH_A_COUNT = 16
"""Guests that must have come whole or ended before a full process is counted again."""


def most_mappings() -> int:
    """The limit of this system."""
    return int(Path("/proc/sys/vm/max_map_count").read_text())


def count_mappings() -> int:
    """What this process has now. Takes a microsecond for each."""
    return Path("/proc/self/maps").read_bytes().count(b"\n")


def guests_possible() -> int:
    """Guests of the smallest kind that this system leaves room for."""
    return max(0, most_mappings() - KEPT) // LEAST


@attrs.define(eq=False)
class Mappings:
    """Decides whether one more guest fits."""

    _offload: Offload
    _limit: int = attrs.field(factory=lambda: most_mappings() - KEPT)
    _counted: int = 0
    """Mappings that the process had when they were last counted."""
    _count: int = 0
    """Number of that count."""
    _since: int = 0
    """Guests that it may not have seen whole."""
    _beginning: int = 0
    """Guests that have not all their memory yet."""
    _ended: int = 0
    """Guests that have ended since."""
    _live: int = 0
    _counting: trio.Lock = attrs.field(factory=trio.Lock)

    def room(self) -> bool:
        """Whether one more guest fits for sure. Each that was counted may get one more mapping."""
        needed = self._counted + self._live + MOST * (self._since + 1)
        return needed <= self._limit

    async def make_sure(self) -> None:
        """Return when `room` says so: count, if need be. UsageError when the process is full."""
        async with self._counting:
            if self.room():
                return
            if self._ended + self._since - self._beginning >= _WORTH_A_COUNT:
                self._count += 1
                self._ended, self._since = 0, self._beginning
                self._counted = await self._offload(count_mappings)
            if not self.room():
                raise UsageError(
                    f"no more guests fit: {self._live} run, the process has {self._counted} "
                    f"memory mappings, a guest may need {MOST}, and of the {most_mappings()} of "
                    f"vm.max_map_count {KEPT} are kept free"
                )

    def begin(self) -> int:
        """One more guest, as `room` allowed; the result is for `end`."""
        self._live += 1
        self._since += 1
        self._beginning += 1
        return self._count

    def complete(self) -> None:
        """A guest that began has all its memory."""
        self._beginning -= 1

    def end(self, count: int) -> None:
        """A complete guest is gone."""
        self._live -= 1
        self._ended += 1
        if count == self._count:
            self._since -= 1
