"""The line for room in the pools, oldest instance first (contract R4, R5). A pure core.

All requests for a kind stand in one line; only the first is ever granted, and only whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import insort
from typing import ClassVar

import attrs

from pie.errors import PieError
from pie.ids import InstanceId, ResourceKind
from pie.probes import sometimes

from .passes import Pending, Resource
from .pools import Answer, HostPool, Pool
from .quotas import to_spare


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

    outlives: ClassVar[bool] = False
    """Whether it stays in line when its instance has ended."""

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
    def refuse(self, room: Room, error: PieError) -> list[Pending]:
        """Answer that it will never be granted; the passes that this fails."""


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
    returning: dict[InstanceId, list[Resource]] = attrs.field(factory=dict)
    """What is asked back from host memory for the passes of each instance, in one request."""
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
            for request in [r for r in line if r.instance == instance and not r.outlives]:
                sometimes("who stands in line leaves")
                line.remove(request)
                request.refuse(self, error)
        self.protected.discard(instance)

    def refuse(self, request: Request, error: PieError) -> list[Pending]:
        """Take a request out of its line for good, if it is in it; the passes that this fails."""
        line = self._lines[request.kind]
        if request not in line:
            return []
        line.remove(request)
        return request.refuse(self, error)

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
