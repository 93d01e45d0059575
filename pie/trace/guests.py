"""What a recorder knows of an instance."""

from __future__ import annotations

import attrs

from pie.actors.passes import Pending
from pie.ids import InstanceId

from .requests import Asked


@attrs.define(eq=False)
class Guest:
    """An instance: what it is doing, and when its next request could have come at the earliest."""

    instance: InstanceId
    pid: int
    tid: int
    ready: float
    """When it was last seen to have what it waited for: running since then."""
    stopped: float
    """When it began to wait, if it does."""
    requested: float
    """Its last request, at first its launch."""
    answered: float
    """The last answer to it."""
    answers: list[int] = attrs.field(factory=list)
    """`op` of what was answered since its last request."""
    asked: list[Asked] = attrs.field(factory=list)
    """Unanswered questions but for passes and commands."""
    in_flight: dict[Pending, None] = attrs.field(factory=dict)
    moves: bool = False
    lanes: dict[tuple[int, int], list[int]] = attrs.field(factory=dict)
    """Free tracks of each (model, queue); -1 stands for requests about pages."""
    lane_counts: dict[tuple[int, int], int] = attrs.field(factory=dict)

    def woken_by(self) -> str:
        """What it has just got."""
        for asked in self.asked:
            if asked.message.reply.ready():
                return asked.name
        for work in self.in_flight:
            if work.token.reply.ready():
                return "pass"
        return "outside"

    def hear(self, now: float) -> list[Asked]:
        """The questions that have their answers by now."""
        heard = [asked for asked in self.asked if asked.message.reply.ready()]
        if heard:
            self.asked = [asked for asked in self.asked if asked not in heard]
            self.answers += [asked.op for asked in heard]
            self.answered = now
        return heard
