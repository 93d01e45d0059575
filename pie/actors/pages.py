"""The page table of one model: who refers to which page or slot, and who waits for room.

A pure core. Physical resources are reference counted: virtual ids of instances and export
entries hold them, pending passes use them, and a number is reused only when nobody does either
(contract R1 to R4, R6, R8). Embedding slots are kept the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pie.errors import Closed, OutOfResources, PieError
from pie.ids import InstanceId, Pointer, ResourceKind
from pie.probes import sometimes

from .audit import audit_holders, audit_numbers, audit_places, audit_quotas, audit_users
from .exports import ExportBook
from .hazards import Users, check_spoiled, order_by_pages, order_by_slots
from .passes import Pending, PendingCommand, PendingPass, Resource
from .pools import NAMES, Answer, Export, ExportKey, Importer, Pool, Space
from .quotas import Quotas
from .room import Allocation, Copy, HostPool, Return, Room

PAGE = ResourceKind.KV_PAGE


class PageTable:
    """Everything about one model's pages and slots. No clock, channel or tensor."""

    def __init__(
        self,
        page_size: int,
        pages: int,
        embedding_slots: int,
        *,
        adapter_slots: int = 0,
        host_pages: int = 0,
        keeps_exports: bool = False,
        max_pages_per_user: int | None = None,
    ) -> None:
        self.page_size = page_size
        self.pools = {
            ResourceKind.KV_PAGE: Pool(pages),
            ResourceKind.EMBEDDING: Pool(embedding_slots),
            ResourceKind.ADAPTER: Pool(adapter_slots),
        }
        self.room = Room(self.pools, HostPool(host_pages))
        self._users: dict[InstanceId, str] = {}
        self._spaces: dict[tuple[InstanceId, ResourceKind], Space] = {}
        self._exports: dict[ExportKey, Export] = {}
        self.users = Users()
        self._quotas = Quotas(max_pages_per_user)
        self.book = ExportBook(
            self._exports, self.room, self.users, page_size, self._quotas, keeps=keeps_exports
        )

    # ------------------------------------------------------------------ instances

    def open(self, instance: InstanceId, user: str) -> None:
        self._users[instance] = user
        for kind in self.pools:
            self._spaces[instance, kind] = Space(self._quotas.of(user) if kind is PAGE else None)

    def close(self, instance: InstanceId) -> None:
        """Take back handles, requests and unwritten exports; visible exports stay (R6, R10)."""
        gone = Closed(f"instance {instance} has ended")
        self.room.leave(instance, gone)
        self.book.leave(instance, gone)
        self.drop_handles(instance)
        for kind in self.pools:
            del self._spaces[instance, kind]
        del self._users[instance]
        self.room.serve()

    def drop_handles(self, instance: InstanceId) -> None:
        """The instance lets go of all it holds; what its passes refer to stays for them."""
        for kind in self.pools:
            self.free(instance, kind, list(self._spaces[instance, kind].held))

    def holds(self, instance: InstanceId, kind: ResourceKind) -> int:
        """How many resources of a kind the instance has handles of."""
        space = self._spaces.get((instance, kind))
        return len(space.held) if space else 0  # it may have ended, and an export need a copy

    def pages_of(self) -> dict[InstanceId, int]:
        """How many KV pages each instance has handles of."""
        return {instance: self.holds(instance, PAGE) for instance in self._users}

    # ----------------------------------------------------------------- allocation

    def allocate(self, instance: InstanceId, kind: ResourceKind, count: int, token: Any) -> None:
        """Ask for `count` new resources; the answer comes by `answers`, now or later.

        OutOfResources if that can never be, LimitExceeded if the user may not have so many.
        """
        pool = self.pools[kind]
        held = self.holds(instance, kind)
        if held + count > pool.capacity:
            raise OutOfResources(
                f"instance {instance} holds {held} {NAMES[kind]} and asks for {count} more, "
                f"the pool has {pool.capacity}"
            )
        space = self._spaces[instance, kind]
        space.take(count, "allocate-resources")
        arrival = self.room.next_arrival()
        self.room.enqueue(Allocation(instance, arrival, kind, space, count, token))
        self.room.serve()

    def take_spare(
        self, instance: InstanceId, kind: ResourceKind, count: int
    ) -> tuple[Pointer, ...]:
        """Up to `count` new resources that nobody will miss (contract X10)."""
        space, pool = self._spaces[instance, kind], self.pools[kind]
        count = space.spare(min(count, self.room.spare(kind)))
        space.take(count, "try-allocate")
        return tuple(space.add(Resource(kind, pool.take())) for _ in range(count))

    def free(self, instance: InstanceId, kind: ResourceKind, pointers: Iterable[Pointer]) -> None:
        """Drop handles the instance holds (R2)."""
        space = self._spaces[instance, kind]
        for pointer in pointers:
            self.room.reclaim(space.remove(pointer))
        self.room.serve()

    def share(self, instance: InstanceId, pointers: Sequence[Pointer]) -> tuple[Pointer, ...]:
        """Another handle of each page (R8). LimitExceeded if its user may not have so many."""
        space = self._spaces[instance, PAGE]
        space.take(len(pointers), "share-pages")
        return tuple(space.add(space.held[pointer]) for pointer in pointers)

    # -------------------------------------------------------------------- exports

    def _key(self, instance: InstanceId, kind: ResourceKind, name: str) -> ExportKey:
        return self._users[instance], kind, name

    def exported(self, instance: InstanceId, kind: ResourceKind, name: str) -> bool:
        """Whether the instance's user has an entry of this name, written or not."""
        return self._key(instance, kind, name) in self._exports

    def export(
        self,
        instance: InstanceId,
        kind: ResourceKind,
        pointers: Sequence[Pointer],
        name: str,
        token: Any = None,
    ) -> None:
        """Register an entry. `token` is answered True now, or when a kept entry is on disk.

        GuestError if there is one of this name, LimitExceeded beyond the user's quota.
        """
        held = self._spaces[instance, kind].held
        resources = [held[pointer] for pointer in pointers]
        self.book.add(self._key(instance, kind, name), instance, resources, token)

    def import_(self, instance: InstanceId, kind: ResourceKind, name: str, token: Any) -> None:
        """Ask for handles of an export; the answer comes by `answers`."""
        space = self._spaces[instance, kind]
        self.book.import_(self._key(instance, kind, name), Importer(instance, space, token))

    def release(self, instance: InstanceId, kind: ResourceKind, name: str) -> None:
        """Drop an entry; an unknown name does nothing."""
        self.book.release(self._key(instance, kind, name))

    def exports(self, instance: InstanceId, kind: ResourceKind) -> list[tuple[str, int]]:
        """The visible names of the instance's user with their sizes, by name."""
        user = self._users[instance]
        return sorted(
            (name, len(export.resources))
            for (owner, of, name), export in self._exports.items()
            if owner == user and of is kind and export.visible
        )

    # --------------------------------------------------------------------- passes

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
        order_by_pages(pending, self.users, notable, self.page_size)
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
            self.room.serve()
        self.users.add(pending)
        return check_spoiled(pending, notable, self.page_size)

    def _use_slots(self, pending: PendingPass | PendingCommand) -> None:
        """Order it behind what conflicts with it on embedding and adapter slots; use them."""
        if slots := pending.slots:
            order_by_slots(pending, self.users, slots)
            for slot in slots:
                slot.uses += 1

    def _bind(self, pending: PendingPass) -> None:
        """Look up what the pointers stand for, replacing shared pages it writes by copies (R8)."""
        work, instance = pending.work, pending.instance
        space = self._spaces[instance, PAGE]
        pages = list(map(space.held.__getitem__, work.pages))
        pending.first_written = (work.length - pending.inputs) // self.page_size
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
            arrival = self.room.next_arrival()
            self.room.enqueue(Copy(pending.instance, arrival, source.kind, pending, source, target))

    def ask_back(self, pending: PendingPass) -> None:
        """Ask for the pages of a pass that are in host memory, in one request per instance."""
        sources = [source for source, _ in pending.copies]
        away = [page for page in (*pending.pages, *sources) if page.place is not None]
        if not away:
            return
        request = self.room.returning.get(pending.instance)
        if request is None:
            arrival = self.room.next_arrival()
            request = Return(pending.instance, arrival, ResourceKind.KV_PAGE, away)
            self.room.returning[pending.instance] = request
            self.room.enqueue(request)
        else:
            known = set(request.resources)
            sometimes("a return from host memory is joined")
            request.resources += [page for page in away if page not in known]

    def proceed(self, pending: PendingPass) -> None:
        """A step of a decoding is over, and it goes on: it has what it copied."""
        self.room.protected.discard(pending.instance)
        if pending.copies:
            self._release([source for source, _ in pending.copies])
            pending.forget_copies()

    def finish(self, pending: PendingPass) -> None:
        """The pass is over, well or not: it uses nothing any more."""
        self.room.protected.discard(pending.instance)
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
        self.users.add(command)

    def finish_command(self, command: PendingCommand) -> None:
        """The command is over, well or not."""
        self._release(command.slots)
        self._over(command)

    def fail_users(self, kind: ResourceKind, number: int, error: PieError) -> list[Pending]:
        """Give what uses a slot the error, and nothing that has one already."""
        failed = [
            work
            for work in self.users
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
                self.room.reclaim(resource)

    def _over(self, pending: Pending) -> None:
        self.users.remove(pending)
        self.book.finished(pending)
        self.room.serve()

    # --------------------------------------------------------------------- moving

    def movable(self, first: InstanceId, idle: Sequence[InstanceId]) -> Iterator[Resource]:
        """Pages that may move out for instance `first`, in this order (R5): exports that nobody
        uses, private pages of the `idle`, those of younger instances than the first in line.

        Not what an older one's pass needs, which would ask for it back at once and be first.
        """
        for export in self._unused_exports():
            yield from (page for page in export.resources if self._may_wait(page, first))
        younger = sorted((i for i in self._users if i > first and i not in idle), reverse=True)
        for victim in (*idle, *younger):
            space = self._spaces.get((victim, ResourceKind.KV_PAGE))
            if space and victim != first and victim not in self.room.protected:
                held = space.held.values()
                yield from (page for page in held if self._may_wait(page, first, victim))

    def _may_wait(self, page: Resource, first: InstanceId, near: InstanceId | None = None) -> bool:
        return page.private and all(
            work.instance > first and work.instance not in self.room.protected
            for work, _ in self.users.of(page, near)
        )

    def movable_past(self, instance: InstanceId) -> list[Resource]:
        """Pages that may move out for `instance` where nobody can run: all private ones that it
        does not need itself, those that no pass waits for first, then those of the youngest.
        """
        exports = (page for export in self._unused_exports() for page in export.resources)
        pages = [
            page
            for victim in sorted(self._users, reverse=True)
            if victim != instance
            for page in self._spaces[victim, ResourceKind.KV_PAGE].held.values()
        ]
        free = [
            page
            for page in (*exports, *pages)
            if page.private
            and not any(work.instance == instance for work, _ in self.users.of(page, instance))
        ]
        return sorted(free, key=lambda page: page.uses > 0)

    def _unused_exports(self) -> Iterator[Export]:
        """Entries of KV pages that nobody is about to import or save."""
        for (_, kind, _), export in self._exports.items():
            if kind is ResourceKind.KV_PAGE and not (export.importers or export.saving):
                yield export

    # ------------------------------------------------------------------- the shell

    def answers(self) -> list[Answer]:
        """What has to be told since the last call."""
        answers, self.room.answers = self.room.answers, []
        return answers

    def waiting(self) -> int:
        """Requests in line."""
        return self.room.waiting()

    def check(self, pending: Iterable[Pending] | None = None) -> None:
        """Assert that all counts add up: see `audit`. With all that is `pending`, that nothing is
        lost either.
        """
        entries = (export.resources for export in self._exports.values())
        live = audit_holders(self._spaces.values(), entries)
        if pending is not None:
            live = audit_users(pending, live)
        audit_numbers(self.pools, live, whole=pending is not None)
        audit_places(self.room, live, whole=pending is not None)
        audit_quotas(
            self._quotas.all(), self._spaces.values(), self._exports.values(), self.room.requests()
        )
