"""Everything an engine makes while it runs, remembered, to see that nothing of it is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import attrs

from pie.activity import Activity
from pie.actors.batching import Scheduler
from pie.actors.broker import Broker
from pie.actors.supervisor import Supervisor
from pie.guest import _capi
from pie.guest.calls import GUESTS
from pie.guest.instance import Instance
from pie.guest.native import NativeHost
from pie.ids import EventCode
from pie.mailbox import Reply
from pie.messages import Event
from pie.outbox import Outbox

_WATCHED = (
    Activity,
    Broker,
    Instance,
    NativeHost,
    Outbox,
    Reply,
    Scheduler,
    Supervisor,
    _capi.Store,
)


@attrs.define(eq=False)
class Made:
    """What was made, by type, and what every outbox was given in the end."""

    things: dict[type, list[Any]] = attrs.field(factory=lambda: {kind: [] for kind in _WATCHED})
    ends: list[tuple[Outbox[Any], Any]] = attrs.field(factory=list)

    def check_ended(self) -> None:
        """After an engine: it is gone with all that it served."""
        unanswered = [reply for reply in self.things[Reply] if not reply.ready()]
        assert not unanswered, f"{len(unanswered)} questions were never answered"
        self.check_quiet()

    def check_quiet(self) -> None:
        """Also while an engine runs: no instance is left, and nothing of the former ones."""
        for supervisor in self.things[Supervisor]:
            assert not supervisor._running, "the supervisor has instances"
        for broker in self.things[Broker]:
            assert not broker._inboxes, "the broker has inboxes"
            assert not broker._topics, "the broker has subscriptions"
        for scheduler in self.things[Scheduler]:
            check_scheduler(scheduler)
        for activity in self.things[Activity]:
            assert activity.moving == 0, f"{activity.moving} count as moving"
        self._check_guests()
        self._check_ends(self.things[Outbox])

    def _check_guests(self) -> None:
        assert not GUESTS, "a component is known to the trampolines"
        for store in self.things[_capi.Store]:
            assert store._pointer is None, "a wasm store was not deleted"
        for host in self.things[NativeHost]:
            assert not host._handles, "a native guest has handles"
        for instance in self.things[Instance]:
            assert not instance.mover.moving, f"instance {instance.id} counts as moving"
            assert instance.subscriptions == 0, f"instance {instance.id} has subscriptions"
            assert instance.blob_bytes == 0, f"instance {instance.id} has blobs"

    def _check_ends(self, outboxes: list[Outbox[Any]]) -> None:
        for outbox in outboxes:
            ends = [last for box, last in self.ends if box is outbox]
            assert len(ends) == 1, f"{len(ends)} terminal events"
            assert isinstance(ends[0], Event)
            assert ends[0].code not in (EventCode.MESSAGE, EventCode.SERVER_ERROR), ends[0]


def check_scheduler(scheduler: Scheduler) -> None:
    """No instance, pass, request or number is left but those of visible exports."""
    ledger, table = scheduler._ledger, scheduler._table
    assert not ledger._owners, "the ledger has instances"
    assert len(scheduler._planner) == 0, "the planner has passes"
    assert not table._spaces, "the page table has handles"
    assert not table._users, "the page table has instances"
    room = table.room
    assert room.waiting() == 0, "somebody stands in a line"
    assert not room.returning, "a return from host memory is open"
    assert not room.protected, "an instance is still protected"
    assert not room.answers, "answers were not told"
    assert not table.book._pending, "an export waits"
    assert not table.book.errands, "errands were not run"
    table.check()
    exported = [page for export in table._exports.values() for page in export.resources]
    for page in exported:
        assert page.uses == 0, "an exported page is used"
        assert not page.awaiting, "somebody waits for an exported page"
        assert page.writers == 0, "an exported page counts writers"
    for kind, pool in table.pools.items():
        mine = {page for page in exported if page.kind is kind}
        numbers = {page.number for page in mine} - {None}
        assert len(pool.free) + len(numbers) == pool.capacity, f"{kind.name}: numbers are missing"
        assert not pool.stale & set(pool.free), f"{kind.name}: a free number is to be cleared"
    # What was granted and let go again before it was written back still has its place.
    places = {page.place for page in exported if page.place is not None}
    places |= {returned.place for returned in room.returned}
    inside = {place for place in places if place < room.host.capacity}
    assert len(room.host.free) + len(inside) == room.host.capacity, "host places are missing"
    assert places - inside == room.host.extra, "extra host places are left"
    assert places <= set(scheduler._relocation._contents), "contents in host memory are missing"


@contextmanager
def everything_made() -> Iterator[Made]:
    """Remember what is made in here."""
    made = Made()
    with ExitStack() as stack:
        for kind, things in made.things.items():
            stack.enter_context(mock.patch.object(kind, "__init__", _noting(kind, things)))
        finish = Outbox.finish

        def note_end(self: Outbox[Any], last: Any) -> None:
            made.ends.append((self, last))
            finish(self, last)

        stack.enter_context(mock.patch.object(Outbox, "finish", note_end))
        yield made


def _noting(kind: Any, things: list[Any]) -> Callable[..., None]:
    make = kind.__init__

    def note(self: Any, *arguments: Any, **options: Any) -> None:
        things.append(self)
        make(self, *arguments, **options)

    return note
