"""What the page table is made of: virtual ids, numbers of the pool, and places in the line."""

from __future__ import annotations

import heapq
from enum import Enum, auto
from typing import Any, TypeAlias

import attrs

from pie.errors import PieError
from pie.ids import InstanceId, Pointer, ResourceKind

from .passes import Pending, Resource
from .quotas import Holdings

NAMES = {
    ResourceKind.KV_PAGE: "KV pages",
    ResourceKind.EMBEDDING: "embedding slots",
    ResourceKind.ADAPTER: "adapter slots",
}

ExportKey = tuple[str, ResourceKind, str]
"""User, kind, name."""


@attrs.define(eq=False)
class Space:
    """The virtual ids of one instance and kind, smallest free first."""

    holdings: Holdings | None = None
    """Where its user's are counted, if they are KV pages."""
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
        self.give_back(1)
        return resource

    def take(self, count: int, call: str) -> None:
        """Count `count` that are asked for, to be added later. LimitExceeded beyond a quota."""
        if self.holdings is not None:
            self.holdings.take(count, call)

    def spare(self, count: int) -> int:
        """As many of `count` more as leave its user enough."""
        return count if self.holdings is None else self.holdings.spare(count)

    def give_back(self, count: int) -> None:
        """So many are let go, or will not be added."""
        if self.holdings is not None:
            self.holdings.give_back(count)


Spaces: TypeAlias = dict[tuple[InstanceId, ResourceKind], Space]
"""Those of all instances and kinds."""


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
class HostPool:
    """Places for pages in host memory; what is in them is the shell's."""

    capacity: int
    free: list[int] = attrs.field(init=False)
    extra: set[int] = attrs.field(factory=set)
    """Places beyond the capacity: of what came from a file and is on its way to the pool."""
    _extra_taken: int = 0

    def __attrs_post_init__(self) -> None:
        self.free = list(range(self.capacity))

    @property
    def used(self) -> int:
        return self.capacity - len(self.free)

    def take(self) -> int:
        return heapq.heappop(self.free)

    def take_extra(self) -> int:
        """A place that no limit counts and nobody had before."""
        place = self.capacity + self._extra_taken
        self._extra_taken += 1
        self.extra.add(place)
        return place

    def give_back(self, place: int) -> None:
        if place < self.capacity:
            heapq.heappush(self.free, place)
        else:
            self.extra.discard(place)


@attrs.frozen(eq=False)
class Importer:
    """An instance that wants handles of an export in its `space`."""

    instance: InstanceId
    space: Space
    token: Any


@attrs.define(eq=False)
class Export:
    """An export entry; importers wait until the passes that write its pages are done (R6)."""

    owner: InstanceId | None
    """None: it is from an earlier run of the engine."""
    resources: list[Resource]
    holdings: Holdings | None
    """Where its user's are counted, if they are KV pages."""
    unwritten: set[Pending] = attrs.field(factory=set)
    importers: list[Importer] = attrs.field(factory=list)
    """Whoever has asked for handles and has none yet."""
    exporter: Any = None
    """The token of an exporter that waits until the entry is on disk (R7)."""
    kept: bool = False
    """A file of it exists or is on its way."""
    saving: bool = False
    """All is written, but not yet to its file."""
    away: bool = False
    """It exists as a file only: its resources have neither number nor place."""

    @property
    def visible(self) -> bool:
        return not self.unwritten and not self.saving

    def hand_out(self, importer: Importer) -> list[Answer]:
        """Handles for an importer, unless the entry has gone, which it has then been told."""
        if importer not in self.importers:
            return []
        self.importers.remove(importer)
        pointers = tuple(importer.space.add(resource) for resource in self.resources)
        return [Answer(importer.token, pointers)]

    def turn_away(self, importer: Importer, error: PieError) -> list[Answer]:
        """`error` for an importer that has not been answered yet."""
        if importer not in self.importers:
            return []
        self.importers.remove(importer)
        importer.space.give_back(len(self.resources))
        return [Answer(importer.token, error=error)]


Exports: TypeAlias = dict[ExportKey, Export]


class Errand(Enum):
    """What has to happen to the file of an export (R7)."""

    SAVE = auto()
    LOAD = auto()
    DELETE = auto()


@attrs.frozen
class Answer:
    """What the shell has to tell the asker behind `token`."""

    token: Any
    value: Any = None
    error: PieError | None = None
