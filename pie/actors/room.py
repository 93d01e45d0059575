"""The line for room in the pools, oldest instance first (contract R4, R5). A pure core.

Allocations, copies on write and returns from host memory stand in one line per kind; only the
first is ever granted, and only whole.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from bisect import insort
from typing import Any

import attrs

from pie.errors import PieError
from pie.ids import InstanceId, ResourceKind
from pie.probes import sometimes

from .passes import Pending, PendingPass, Resource
from .pools import Answer, Export, Importer, Pool, Space
from .quotas import to_spare


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
class Returned:
    """A page that has a number again, where its contents have to be written before the next step.

    It may be let go meanwhile, and its number go to another.
    """

    page: Resource
    number: int
    place: int


@attrs.define(eq=False)
class Request(ABC):
    """A place in the line: oldest instance first, then first come."""

    instance: InstanceId
    arrival: int
    kind: ResourceKind

    @abstractmethod
    def wanted(self) -> int:
        """How many numbers it takes to grant it now."""

    @abstractmethod
    def grant(self, room: Room) -> None:
        """Take them; there are enough."""

    @abstractmethod
    def refuse(self, error: PieError) -> tuple[list[Answer], list[Pending]]:
        """What to answer and which passes to fail, since it will never be granted."""


@attrs.define(eq=False)
class Allocation(Request):
    """New resources for an instance."""

    space: Space
    count: int
    token: Any

    def wanted(self) -> int:
        return self.count

    def grant(self, room: Room) -> None:
        pool = room.pools[self.kind]
        new = (Resource(self.kind, pool.take()) for _ in range(self.count))
        room.answers.append(Answer(self.token, tuple(self.space.add(r) for r in new)))

    def refuse(self, error: PieError) -> tuple[list[Answer], list[Pending]]:
        self.space.give_back(self.count)
        return [Answer(self.token, error=error)], []


@attrs.define(eq=False)
class Copy(Request):
    """A page for the private copy that a pass writes to (R8)."""

    work: PendingPass
    source: Resource
    target: Resource

    def wanted(self) -> int:
        return 0 if self._unneeded() or self._takes_over() else 1

    def grant(self, room: Room) -> None:
        pool = room.pools[self.kind]
        if self._unneeded():
            sometimes("nobody needs a copy any more")
            return
        if self._takes_over():
            sometimes("a copy takes over its page")
            self.target.number, self.source.number = self.source.number, None
            self.work.copies = tuple(
                pair for pair in self.work.copies if pair[1] is not self.target
            )
            self.source.uses -= 1
        else:
            self.target.number = pool.take()
            if not self.work.finished:
                pool.stale.discard(self.target.number)  # the copy overwrites all of it
        self.target.arrived()

    def refuse(self, error: PieError) -> tuple[list[Answer], list[Pending]]:
        return [], _unfinished(self.target.awaiting)

    def _unneeded(self) -> bool:
        return self.work.finished and not self.target.holders and not self.target.uses

    def _takes_over(self) -> bool:
        """Whether everybody else has let go, so that the page itself becomes the copy.

        The copy must be its only use: the same pass may read the original by another pointer.
        """
        if self.work.finished or self.source.holders or self.source.number is None:
            return False
        return self.source.uses == 1


@attrs.define(eq=False)
class Return(Request):
    """Pages on their way back from host memory, for passes that wait for them."""

    resources: list[Resource]

    def wanted(self) -> int:
        return sum(resource.place is not None for resource in self.resources)

    def grant(self, room: Room) -> None:
        room.returning.pop(self.instance, None)
        room.protected.add(self.instance)
        self._take_back(room)

    def _take_back(self, room: Room) -> None:
        pool = room.pools[self.kind]
        for resource in self.resources:
            if resource.place is not None:
                resource.number = pool.take()
                pool.stale.discard(resource.number)  # all of it is written back
                room.returned.append(Returned(resource, resource.number, resource.place))
                resource.place = None
                resource.arrived()

    def refuse(self, error: PieError) -> tuple[list[Answer], list[Pending]]:
        waiting = [work for resource in self.resources for work in resource.awaiting]
        return [], [work for work in _unfinished(waiting) if work.instance == self.instance]


@attrs.define(eq=False)
class Import(Return):
    """Handles of an export that is not all in the pool."""

    export: Export
    importer: Importer

    def grant(self, room: Room) -> None:
        self._take_back(room)
        room.answers += self.export.hand_out(self.importer)

    def refuse(self, error: PieError) -> tuple[list[Answer], list[Pending]]:
        return self.export.turn_away(self.importer, error), []


def _unfinished(waiting: list[Pending]) -> list[Pending]:
    """Each once; some have failed while they waited."""
    return [work for work in dict.fromkeys(waiting) if not work.finished]


def _age(request: Request) -> tuple[InstanceId, int]:
    return request.instance, request.arrival


@attrs.define(eq=False)
class Room:
    """The pools and the lines in front of them."""

    pools: dict[ResourceKind, Pool]
    host: HostPool
    answers: list[Answer] = attrs.field(factory=list)
    """What has to be told to askers."""
    returned: list[Returned] = attrs.field(factory=list)
    """What has to be written back before the next step."""
    returning: dict[InstanceId, Return] = attrs.field(factory=dict)
    """The open request of each instance whose passes wait for pages in host memory."""
    protected: set[InstanceId] = attrs.field(factory=set)
    """Came back and have not finished a pass since: not chosen to go out again (R5)."""
    _lines: dict[ResourceKind, list[Request]] = attrs.field(factory=dict)
    _arrivals: int = 0

    def next_arrival(self) -> int:
        self._arrivals += 1
        return self._arrivals

    def reclaim(self, resource: Resource) -> None:
        """Take back the number and place of a resource that nobody refers to any more."""
        if resource.holders or resource.uses:
            return
        if resource.number is not None:
            self.pools[resource.kind].give_back(resource.number)
            resource.number = None
        if resource.place is not None:
            self.host.give_back(resource.place)
            resource.place = None

    def enqueue(self, request: Request) -> None:
        """Stand in line; the next `serve` may grant it."""
        insort(self._lines.setdefault(request.kind, []), request, key=_age)

    def serve(self) -> None:
        """Grant from the front of each line while there is enough."""
        for kind, line in self._lines.items():
            while line and line[0].wanted() <= len(self.pools[kind].free):
                line.pop(0).grant(self)
            if line:
                sometimes("somebody stands in line for room")

    def spare(self, kind: ResourceKind) -> int:
        """How many numbers of a kind nobody will miss: none while somebody waits for some."""
        if self.first(kind) is not None or self.returned:
            return 0
        pool = self.pools[kind]
        return to_spare(len(pool.free), pool.capacity)

    def first(self, kind: ResourceKind) -> Request | None:
        """Who is first in a line, and so has not enough room."""
        line = self._lines.get(kind)
        return line[0] if line else None

    def leave(self, instance: InstanceId, error: PieError) -> None:
        """An instance has ended: its questions are answered so; copies stay while needed."""
        for line in self._lines.values():
            for request in [r for r in line if r.instance == instance and not isinstance(r, Copy)]:
                sometimes("who stands in line leaves")
                line.remove(request)
                self.answers += request.refuse(error)[0]
        self.returning.pop(instance, None)
        self.protected.discard(instance)

    def refuse(self, request: Request, error: PieError) -> list[Pending]:
        """Take a request out of its line for good, if it is in it; the passes that this fails."""
        line = self._lines[request.kind]
        if request not in line:
            return []
        line.remove(request)
        if self.returning.get(request.instance) is request:
            del self.returning[request.instance]
        answers, failed = request.refuse(error)
        self.answers += answers
        return failed

    def behind_first(self, kind: ResourceKind) -> list[Request]:
        """Who stands in a line behind the first."""
        return self._lines.get(kind, [])[1:]

    def let_past(self, request: Request) -> None:
        """Grant a request that is not the first of its line, if it still stands there and fits."""
        line = self._lines[request.kind]
        if request in line and request.wanted() <= len(self.pools[request.kind].free):
            line.remove(request)
            request.grant(self)

    def askers(self, kind: ResourceKind | None = None) -> set[InstanceId]:
        """Who stands in the line for a kind, or in any."""
        lines = self._lines.values() if kind is None else [self._lines.get(kind, [])]
        return {request.instance for line in lines for request in line}

    def requests(self) -> list[Request]:
        """Those in all lines."""
        return [request for line in self._lines.values() for request in line]

    def waiting(self) -> int:
        """How many there are."""
        return sum(len(line) for line in self._lines.values())
