"""Who is next when a step has no room for all that is ready. A pure core.

Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) in two levels, users and their
instances: next is the user that has had the fewest rows, of it the instance that has had the
fewest, of that the oldest pass. Whoever comes or comes back is taken to have had as much as the
one who is served just now, so nobody saves up and nobody is made to catch up. Rows count from the
last step that had room for all: before it, nobody took anything from anybody.

Priority goes first: a lower level is looked at when the higher ones have nothing more. Waiting
lifts a pass by a level per ageing period until it is among the highest, where it gets its
user's share. Everything is O(log n) in a pass; ordering nothing costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush, heapreplace
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import attrs

from pie.ids import InstanceId, Priority


class Claim(Protocol):
    """What is known of a pass here."""

    @property
    def sequence(self) -> int: ...
    @property
    def instance(self) -> InstanceId: ...
    @property
    def priority(self) -> Priority: ...
    @property
    def submitted_at(self) -> float: ...


T = TypeVar("T", bound=Claim)

LEVELS = len(Priority)
TOP = max(Priority)


Lines: TypeAlias = dict[int, list[Any]]
"""A heap for each level that anything was ever at."""


@attrs.define(eq=False)
class _Instance:
    """What an instance has had, and its passes in line."""

    served: float
    """Rows it has had, and where it began."""
    lines: Lines = attrs.field(factory=dict)
    """(sequence, pass)"""
    in_line: int = 0
    """Bits of the levels at which it stands in a line itself."""
    waiting: int = 0


@attrs.define(eq=False)
class _User:
    """What a user has had, and its instances in line."""

    number: int
    served: float
    lines: Lines = attrs.field(factory=dict)
    """(served, first pass, instance)"""
    in_line: int = 0
    waiting: int = 0
    now_served: float = 0.0
    """How much the instance that was served last had had before."""
    instances: dict[InstanceId, _Instance] = attrs.field(factory=dict)
    crowded: int = 64
    """With so many instances, those that have nothing to remember are forgotten."""


Place: TypeAlias = tuple[int, _User, _Instance]
"""Where a pass stands: its level, and who it counts for."""


@attrs.define(eq=False)
class FairOrder(Generic[T]):
    """The order of the passes that compete for room in steps."""

    user_of: Callable[[InstanceId], str]
    ageing_seconds: float
    _users: dict[str, _User] = attrs.field(factory=dict)
    _lines: Lines = attrs.field(factory=dict)
    _places: dict[T, Place] = attrs.field(factory=dict)
    """Where each pass is; entries of it in other lines are stale."""
    _ageing: list[tuple[float, int, T]] = attrs.field(factory=list)
    _now_served: float = 0.0

    @property
    def idle(self) -> bool:
        """Whether nothing is offered or remembered: there is no shortage."""
        return not self._users

    def clear(self) -> None:
        """There was room for all: forget who has had what."""
        if self._users:
            self._users.clear()
            self._places.clear()
            self._ageing.clear()
            self._now_served = 0.0
            self._lines.clear()

    def offer(self, passes: Iterable[T], now: float) -> None:
        """These are ready; those that are known already stay where they are, or move up."""
        places = self._places
        for work in passes:
            place = places.get(work)
            if place is None or work.priority > place[0]:
                self._insert(work, self._level(work, now), now)

    def discard(self, work: T) -> None:
        """It is over, whether it was picked or not. When nothing is left, so is the shortage."""
        if self._users:
            self._take_out(work)
            if not self._places:
                self.clear()

    def picks(self, now: float) -> Iterator[T]:
        """All that was offered, who is next first; `charge` between two picks has effect at once.

        What has been picked and is still to be run has to be offered again.
        """
        self._age(now)
        for level in reversed(range(LEVELS)):
            while (work := self._pick(level)) is not None:
                yield work

    def charge(self, work: T, rows: int, *, complete: bool) -> None:
        """A step contains so many rows of a picked pass.

        Its instance pays for all of it when it is complete: until then it stays in front of the
        user's other instances, since half of two prompts is of less use than all of one.
        """
        user = self._users.get(self.user_of(work.instance))
        if user is None:
            return
        user.served += rows
        instance = user.instances.get(work.instance)
        if instance is not None and complete:
            instance.served += rows

    def _level(self, work: T, now: float) -> int:
        waited = int((now - work.submitted_at) / self.ageing_seconds)
        return min(TOP, work.priority + waited)

    def _age(self, now: float) -> None:
        ageing = self._ageing
        while ageing and ageing[0][0] <= now:
            _, _, work = heappop(ageing)
            place = self._places.get(work)
            if place is not None:
                self._insert(work, max(place[0], self._level(work, now)), now)

    def _insert(self, work: T, level: int, now: float) -> None:
        place = self._places.get(work)
        if place is None:
            user = self._user(work)
            instance = self._instance(user, work)
            user.waiting += 1
            instance.waiting += 1
        else:
            _, user, instance = place
        self._places[work] = level, user, instance
        heappush(instance.lines.setdefault(level, []), (work.sequence, work))
        bit = 1 << level
        if not instance.in_line & bit:
            instance.in_line |= bit
            line = user.lines.setdefault(level, [])
            heappush(line, (instance.served, work.sequence, instance))
        if not user.in_line & bit:
            user.in_line |= bit
            heappush(self._lines.setdefault(level, []), (user.served, user.number, user))
        if level < TOP:
            periods = int((now - work.submitted_at) / self.ageing_seconds) + 1
            due = work.submitted_at + periods * self.ageing_seconds
            heappush(self._ageing, (due, work.sequence, work))

    def _take_out(self, work: T) -> None:
        place = self._places.pop(work, None)
        if place is not None:
            place[1].waiting -= 1
            place[2].waiting -= 1

    def _stands(self, work: T, level: int) -> bool:
        place = self._places.get(work)
        return place is not None and place[0] == level

    def _user(self, work: T) -> _User:
        name = self.user_of(work.instance)
        user = self._users.get(name)
        if user is None:
            user = self._users[name] = _User(len(self._users), self._now_served)
        elif not user.waiting:
            user.served = max(user.served, self._now_served)
        return user

    def _instance(self, user: _User, work: T) -> _Instance:
        instance = user.instances.get(work.instance)
        if instance is None:
            if len(user.instances) >= user.crowded:
                _forget(user)
            instance = user.instances[work.instance] = _Instance(user.now_served)
        elif not instance.waiting:
            instance.served = max(instance.served, user.now_served)
        return instance

    def _pick(self, level: int) -> T | None:
        line = self._lines.get(level)
        while line:
            served, number, user = line[0]
            if served < user.served:
                heapreplace(line, (user.served, number, user))
                continue
            work = self._pick_of(user, level)
            if work is not None:
                self._now_served = max(self._now_served, user.served)
                return work
            heappop(line)
            user.in_line &= ~(1 << level)
        return None

    def _pick_of(self, user: _User, level: int) -> T | None:
        line = user.lines[level]
        while line:
            served, first, instance = line[0]
            passes: list[tuple[int, T]] = instance.lines[level]
            while passes and not self._stands(passes[0][1], level):
                heappop(passes)  # picked before, over, or lifted
            if not passes:
                heappop(line)
                instance.in_line &= ~(1 << level)
            elif (instance.served, passes[0][0]) != (served, first):
                heapreplace(line, (instance.served, passes[0][0], instance))
            else:
                work = heappop(passes)[1]
                self._take_out(work)
                user.now_served = max(user.now_served, served)
                return work
        return None


def _forget(user: _User) -> None:
    """Drop instances that would come back as they are."""
    user.instances = {
        number: instance
        for number, instance in user.instances.items()
        if instance.waiting or instance.in_line or instance.served > user.now_served
    }
    user.crowded = 2 * len(user.instances) + 64
