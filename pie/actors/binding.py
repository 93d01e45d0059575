"""Pending work and the physical resources that its pointers stand for.

A pure core. Work is bound when it is submitted: from then on it refers to resources, whatever
becomes of the pointers (contract R2, R10). A shared page that a pass writes is replaced by a copy
to be made (R8), and a page in host memory is asked back (R5).
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from pie.errors import PieError
from pie.ids import InstanceId, Pointer, ResourceKind
from pie.probes import sometimes

from .exports import ExportBook
from .failures import check_spoiled
from .hazards import Users, order_by_pages, order_by_slots
from .passes import Pending, PendingCommand, PendingPass, Resource
from .pools import Space, Spaces
from .requests import Copy, Return
from .room import Room


@attrs.frozen(eq=False)
class Binding:
    """Binds what is pending on one model, and lets go of its resources when it is over."""

    _spaces: Spaces
    _room: Room
    _users: Users
    _book: ExportBook
    _page_size: int

    def submit(self, pending: PendingPass) -> PieError | None:
        """Translate the pointers of a pass into references, order it behind what it conflicts
        with, and count it as a user, asking for room for what has no number.

        The result says why it reads slots that hold nothing (F7), or is None.
        """
        self._bind(pending)
        first, pages = pending.first_written, pending.pages
        # Most of a long history needs no look: nobody writes it and all of it is there.
        notable = [
            index
            for index, page in enumerate(pages[:first])
            if page.writers or page.number is None or page.spoiled is not None
        ]
        notable += range(first, len(pages))
        order_by_pages(pending, self._users, notable, self._page_size)
        for page in pages:
            page.uses += 1
        for page in pages[first:]:
            page.writers += 1
        self._use_slots(pending)
        for index in notable:
            if pages[index].number is None:
                pages[index].awaited_by(pending)
        if pending.copies:
            self._ask_for_copies(pending)
        if pending.ungranted:
            self.ask_back(pending)
            self._room.serve()
        self._users.add(pending)
        return check_spoiled(pending, notable, self._page_size)

    def _use_slots(self, pending: PendingPass | PendingCommand) -> None:
        """Order it behind what conflicts with it on embedding and adapter slots; use them."""
        if slots := pending.slots:
            order_by_slots(pending, self._users, slots)
            for slot in slots:
                slot.uses += 1

    def _bind(self, pending: PendingPass) -> None:
        """Look up what the pointers stand for, replacing shared pages it writes by copies (R8)."""
        work, instance = pending.work, pending.instance
        space = self._spaces[instance, ResourceKind.KV_PAGE]
        pages = list(map(space.held.__getitem__, work.pages))
        pending.first_written = (work.length - pending.inputs) // self._page_size
        for index in range(pending.first_written, len(pages)):
            if pages[index].holders > 1:
                pages[index] = self._copy_on_write(pending, space, work.pages[index], pages[index])
        pending.pages = pages
        if work.stored or min(work.inputs) < 0:
            slots = self._spaces[instance, ResourceKind.EMBEDDING].held
            pointers = [pointer for _, pointer in work.stored]
            pointers += [Pointer(-1 - value) for value in work.inputs if value < 0]
            pending.embeddings = {pointer: slots[pointer] for pointer in pointers}
            pending.slots = tuple(pending.embeddings.values())
        if work.adapter is not None:
            pending.adapter = self._spaces[instance, ResourceKind.ADAPTER].held[work.adapter]
            pending.slots = (*pending.slots, pending.adapter)

    def _copy_on_write(
        self, pending: PendingPass, space: Space, pointer: Pointer, source: Resource
    ) -> Resource:
        sometimes("a page is copied on write")
        target = Resource(ResourceKind.KV_PAGE, None, holders=1)
        source.holders -= 1
        space.held[pointer] = target
        pending.copies += ((source, target),)
        return target

    def _ask_for_copies(self, pending: PendingPass) -> None:
        for source, target in pending.copies:
            source.uses += 1
            if source.number is None:
                source.awaited_by(pending)
            arrival = self._room.next_arrival()
            self._room.enqueue(
                Copy(pending.instance, arrival, source.kind, pending, source, target)
            )

    def ask_back(self, pending: PendingPass) -> None:
        """Ask for the pages of a pass that are in host memory, in one request per instance."""
        sources = [source for source, _ in pending.copies]
        away = [page for page in (*pending.pages, *sources) if page.place is not None]
        if not away:
            return
        asked = self._room.returning.get(pending.instance)
        if asked is None:
            arrival = self._room.next_arrival()
            self._room.returning[pending.instance] = away
            self._room.enqueue(Return(pending.instance, arrival, ResourceKind.KV_PAGE, away))
        else:
            known = set(asked)
            sometimes("a return from host memory is joined")
            asked += [page for page in away if page not in known]

    def proceed(self, pending: PendingPass) -> None:
        """A step of a decoding is over, and it goes on: it has what it copied."""
        self._room.protected.discard(pending.instance)
        if pending.copies:
            self._release([source for source, _ in pending.copies])
            pending.forget_copies()

    def finish(self, pending: PendingPass) -> None:
        """The pass is over, well or not: it uses nothing any more."""
        self._room.protected.discard(pending.instance)
        for page in pending.pages[pending.first_written :]:
            page.writers -= 1
        self._release(pending.pages)
        if pending.slots:
            self._release(pending.slots)
        if pending.copies:
            self._release([source for source, _ in pending.copies])
        self._over(pending)

    def slots(
        self, instance: InstanceId, kind: ResourceKind, pointers: Iterable[Pointer]
    ) -> tuple[Resource, ...]:
        """What the pointers of a command stand for."""
        held = self._spaces[instance, kind].held
        return tuple(held[pointer] for pointer in pointers)

    def submit_command(self, command: PendingCommand) -> None:
        """Order a command behind what it conflicts with and count it as a user of its slots."""
        self._use_slots(command)
        self._users.add(command)

    def finish_command(self, command: PendingCommand) -> None:
        """The command is over, well or not."""
        self._release(command.slots)
        self._over(command)

    def fail_users(self, kind: ResourceKind, number: int, error: PieError) -> list[Pending]:
        """Give what uses a slot the error, and nothing that has one already."""
        failed = [
            work
            for work in self._users
            if work.error is None
            and any(slot.kind is kind and slot.number == number for slot in work.slots)
        ]
        for work in failed:
            work.error = error
        return failed

    def _release(self, resources: Iterable[Resource]) -> None:
        for resource in resources:
            resource.uses -= 1
            if not resource.holders:
                self._room.reclaim(resource)

    def _over(self, pending: Pending) -> None:
        self._users.remove(pending)
        self._book.finished(pending)
        self._room.serve()
