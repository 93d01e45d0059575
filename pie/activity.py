"""Which guests may still submit something before a model's next batch (the gather rule).

A guest is *moving* from the moment something it waits for is ready until it next blocks,
submits and blocks, or ends. All guests run on our loop, so this is known exactly and no timer
has to guess it. Messages on their way to the model's scheduler count too: until it has read one,
it cannot know whether the sender goes on at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import attrs
import trio

from .probes import sometimes
from .signals import Signal


@attrs.define(eq=False)
class Activity:
    """The number of moving guests and unread messages of one model; `quiet` when there is none."""

    moving: int = 0
    quiet: Signal = attrs.field(factory=lambda: Signal(ready=True))
    _busy_seconds: float = 0.0
    _busy_since: float = 0.0

    def start(self) -> None:
        self.moving += 1
        if self.moving == 1:
            self.begin()

    def stop(self) -> None:
        self.moving -= 1
        if not self.moving:
            self.end()

    def begin(self) -> None:
        """The first one moves."""
        self.quiet.clear()
        self._busy_since = trio.current_time()

    def end(self) -> None:
        """The last one has stopped."""
        self.quiet.set()
        self._busy_seconds += trio.current_time() - self._busy_since

    def busy_seconds(self, now: float) -> float:
        """How long anything has been moving so far, in all."""
        return self._busy_seconds + (now - self._busy_since if self.moving else 0.0)


_stops = itertools.count(1)


@attrs.define(eq=False)
class Mover:
    """One guest's part in the activities of the models it uses.

    A launching guest may turn to any model, so it counts for all of them until it opens its
    first queue; from then on only for those it has queues of.
    """

    _activities: list[Activity]
    _watch: Callable[[bool], None] | None = None
    """Told when it starts and stops."""
    _chosen: bool = False
    _moving: bool = False
    stopped_at: int = 0
    """When it last stopped moving: a greater number is later. A count, for it is compared only,
    and asking the clock costs as much as all the rest of a stop."""
    submitted: bool = False
    """Whether the guest has submitted a pass in its current slice of CPU time."""

    def start(self) -> None:
        if not self._moving:
            self._moving = True
            self.submitted = False
            if self._watch is not None:
                self._watch(True)
            for activity in self._activities:
                activity.moving += 1
                if activity.moving == 1:
                    activity.begin()

    def stop(self) -> None:
        if self._moving:
            self._moving = False
            self.stopped_at = next(_stops)
            if self._watch is not None:
                self._watch(False)
            for activity in self._activities:
                activity.moving -= 1
                if not activity.moving:
                    activity.end()

    @property
    def moving(self) -> bool:
        return self._moving

    def uses(self, activity: Activity) -> None:
        """The guest has opened a queue of the model that `activity` belongs to."""
        if self._chosen and activity in self._activities:
            return
        moving = self._moving
        self.stop()
        self._activities = [*self._activities, activity] if self._chosen else [activity]
        self._chosen = True
        if moving:
            self.start()

    def preempted(self) -> None:
        """A slice of CPU time is used up: without a submission in it, nobody waits any longer."""
        if not self.submitted:
            sometimes("a preempted guest stops counting")
            self.stop()
        self.submitted = False
