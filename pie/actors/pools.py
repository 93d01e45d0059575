"""What the page table is made of: virtual ids, numbers of the pool, and places in the line."""

from __future__ import annotations

import heapq
from typing import Any

import attrs

from pie.errors import PieError
from pie.ids import InstanceId, Pointer, ResourceKind

from .passes import Pending, Resource

NAMES = {
    ResourceKind.KV_PAGE: "KV pages",
    ResourceKind.EMBEDDING: "embedding slots",
    ResourceKind.ADAPTER: "adapter slots",
}


@attrs.define(eq=False)
class Space:
    """The virtual ids of one instance and kind, smallest free first."""

    held: dict[Pointer, Resource] = attrs.field(factory=dict)
    _free: list[Pointer] = attrs.field(factory=list)
    _next: int = 0

    def add(self, resource: Resource) -> Pointer:
        if self._free:
            pointer = heapq.heappop(self._free)
        else:
            pointer = Pointer(self._next)
            self._next += 1
        self.held[pointer] = resource
        resource.holders += 1
        return pointer

    def remove(self, pointer: Pointer) -> Resource:
        resource = self.held.pop(pointer)
        heapq.heappush(self._free, pointer)
        resource.holders -= 1
        return resource


@attrs.define(eq=False)
class Pool:
    """The numbers of one kind, smallest free first; `stale` ones hold a former owner's data."""

    capacity: int
    free: list[int] = attrs.field(init=False)
    used_before: set[int] = attrs.field(factory=set)
    stale: set[int] = attrs.field(factory=set)
    """Handed out again and not cleared yet (R3)."""
    least_free: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.free = list(range(self.capacity))
        self.least_free = self.capacity

    def take(self) -> int:
        number = heapq.heappop(self.free)
        if number in self.used_before:
            self.stale.add(number)
        self.used_before.add(number)
        self.least_free = min(self.least_free, len(self.free))
        return number

    def give_back(self, number: int) -> None:
        self.stale.discard(number)
        heapq.heappush(self.free, number)

    def take_stale(self) -> list[int]:
        """Numbers to clear before the next step."""
        stale, self.stale = sorted(self.stale), set()
        return stale


@attrs.define(eq=False)
class Export:
    """An export entry; importers wait until the passes that write its pages are done (R6)."""

    owner: InstanceId
    resources: list[Resource]
    unwritten: set[Pending]
    importers: list[tuple[InstanceId, Any]] = attrs.field(factory=list)


@attrs.frozen
class Answer:
    """What the shell has to tell the asker behind `token`."""

    token: Any
    value: Any = None
    error: PieError | None = None
