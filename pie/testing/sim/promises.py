"""What the scheduler owes to those who asked: checked when it answers them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from pie.actors.decodings import PendingDecoding
from pie.actors.pages import PageTable
from pie.actors.passes import Pending, PendingPass
from pie.actors.planner import Chunk
from pie.actors.pools import Export
from pie.actors.room import Room
from pie.errors import PassFailed
from pie.messages import ImportPointers, SchedulerMessage, Synchronize


@attrs.define(eq=False)
class Promises:
    """Questions that wait for work, with the work; and passes that were lost with others."""

    _barriers: list[tuple[Synchronize, list[Pending]]] = attrs.field(factory=list)
    _imports: list[tuple[ImportPointers, Export]] = attrs.field(factory=list)
    _lost_together: set[Pending] = attrs.field(factory=set)
    _reads: dict[Pending, list[Pending]] = attrs.field(factory=dict)
    """Whose results each piece of work reads."""

    def took(self, message: SchedulerMessage, line: Iterable[Pending], table: PageTable) -> None:
        """A message has been handled; `line` is what its queue has, of a barrier."""
        if isinstance(message, Synchronize):
            self._barriers.append((message, list(line)))
        elif isinstance(message, ImportPointers):
            user = table._users[message.instance]
            export = table._exports.get((user, message.kind, message.name))
            if export is not None:
                self._imports.append((message, export))

    def submitted(self, work: Pending) -> None:
        """Nothing that a pass writes is shared (R8), and what it waits for is as urgent (Q3)."""
        self._reads[work] = [other for other in work.data if other.instance == work.instance]
        for other in (*work.after, *work.along):
            assert other.priority >= work.priority, "a pass waits for a less urgent one"
        if isinstance(work, PendingPass):
            for page in work.pages[work.first_written :]:
                assert page.holders <= 1, f"a pass writes a page with {page.holders} holders"

    def began(self, step: Sequence[Chunk]) -> None:
        """A step of one instance alone: a failure of it is its own."""
        if len({chunk.work.instance for chunk in step}) == 1:
            self._lost_together.difference_update(chunk.work for chunk in step)

    def lost(self, step: Sequence[Chunk]) -> None:
        """A step was lost: those of several instances are to be repeated apart (F7)."""
        if len({chunk.work.instance for chunk in step}) > 1:
            self._lost_together.update(chunk.work for chunk in step)

    def finished(self, work: Pending) -> None:
        """Answered: not for a step that it lost together with others."""
        if work in self._lost_together and isinstance(work.error, PassFailed):
            cannot = "cannot be repeated" in str(work.error)
            assert cannot, "a pass fails for a step that others had part in"
        self._lost_together.discard(work)
        failed = [other for other in self._reads.pop(work, ()) if other.error is not None]
        excused = isinstance(work, PendingDecoding) and work.taken is not None
        assert work.error is not None or excused or not failed, (
            "a pass succeeds that reads a failed one's"
        )

    def check(self, room: Room) -> None:
        """Whoever has an answer by now was not answered too early; the lines are in order (R5)."""
        for line in room._lines.values():
            ages = [(request.instance, request.arrival) for request in line]
            assert ages == sorted(ages), f"the oldest is not first in line: {ages}"
        for barrier, before in self._barriers:
            if barrier.reply.ready() and barrier.reply.error is None:
                left = [work for work in before if not work.finished]
                assert not left, f"a barrier was answered before {len(left)} passes in front of it"
        for message, export in self._imports:
            if message.reply.ready() and message.reply.error is None:
                writers = len(export.unwritten)
                assert not writers, f"{message.name!r} is imported, and {writers} passes write it"
        self._barriers = [one for one in self._barriers if not one[0].reply.ready()]
        self._imports = [one for one in self._imports if not one[0].reply.ready()]
