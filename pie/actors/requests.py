"""Who stands in line for room: allocations, copies on write, returns and imports. A pure core."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs

from pie.errors import PieError
from pie.probes import sometimes

from .passes import Pending, PendingPass, Resource
from .pools import Answer, Export, Importer, Space
from .room import Request, Returned, Room


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

    def refuse(self, room: Room, error: PieError) -> list[Pending]:
        self.space.give_back(self.count)
        room.answers.append(Answer(self.token, error=error))
        return []


@attrs.define(eq=False)
class Copy(Request):
    """A page for the private copy that a pass writes to (R8)."""

    outlives: ClassVar[bool] = True
    """The copy may be exported, and the request goes by itself when nobody needs it."""

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

    def refuse(self, room: Room, error: PieError) -> list[Pending]:
        return _unfinished(self.target.awaiting)

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
        del room.returning[self.instance]
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

    def refuse(self, room: Room, error: PieError) -> list[Pending]:
        del room.returning[self.instance]
        waiting = [work for resource in self.resources for work in resource.awaiting]
        return [work for work in _unfinished(waiting) if work.instance == self.instance]


@attrs.define(eq=False)
class Import(Return):
    """Handles of an export that is not all in the pool."""

    export: Export
    importer: Importer

    def grant(self, room: Room) -> None:
        self._take_back(room)
        room.answers += self.export.hand_out(self.importer)

    def refuse(self, room: Room, error: PieError) -> list[Pending]:
        room.answers += self.export.turn_away(self.importer, error)
        return []


def _unfinished(waiting: list[Pending]) -> list[Pending]:
    """Each once; some have failed while they waited."""
    return [work for work in dict.fromkeys(waiting) if not work.finished]
