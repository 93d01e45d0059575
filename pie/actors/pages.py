"""The page table of one model: who refers to which page or slot, and who waits for room.

A pure core. Physical resources are reference counted: virtual ids of instances and export
entries hold them, pending passes use them, and a number is reused only when nobody does either
(contract R1 to R4, R6, R8). Embedding slots are kept the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pie.errors import Closed, OutOfResources
from pie.ids import InstanceId, Pointer, ResourceKind

from .exports import ExportBook
from .passes import Pending, PendingCommand, PendingPass, Resource
from .pools import NAMES, Answer, Export, ExportKey, Importer, Pool, Space
from .room import Allocation, Copy, HostPool, Return, Room


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
        self.book = ExportBook(self._exports, self.room, page_size, keeps=keeps_exports)

    # ------------------------------------------------------------------ instances

    def open(self, instance: InstanceId, user: str) -> None:
        self._users[instance] = user
        for kind in self.pools:
            self._spaces[instance, kind] = Space()

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

    # ----------------------------------------------------------------- allocation

    def allocate(self, instance: InstanceId, kind: ResourceKind, count: int, token: Any) -> None:
        """Ask for `count` new resources; the answer comes by `answers`, now or later."""
        pool = self.pools[kind]
        held = self.holds(instance, kind)
        if held + count > pool.capacity:
            raise OutOfResources(
                f"instance {instance} holds {held} {NAMES[kind]} and asks for {count} more, "
                f"the pool has {pool.capacity}"
            )
        space = self._spaces[instance, kind]
        arrival = self.room.next_arrival()
        self.room.enqueue(Allocation(instance, arrival, kind, space, count, token))
        self.room.serve()

    def free(self, instance: InstanceId, kind: ResourceKind, pointers: Iterable[Pointer]) -> None:
        """Drop handles the instance holds (R2)."""
        space = self._spaces[instance, kind]
        for pointer in pointers:
            self.room.reclaim(space.remove(pointer))
        self.room.serve()

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
        """Register an entry. `token` is answered True now, or when a kept entry is on disk."""
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

    def bind(self, pending: PendingPass) -> None:
        """Translate the pointers of a submitted pass into references, copying on write (R8)."""
        work, instance = pending.work, pending.instance
        space = self._spaces[instance, ResourceKind.KV_PAGE]
        first_written = pending.first_written(self.page_size)
        for index, pointer in enumerate(work.pages):
            page = space.held[pointer]
            if index >= first_written and page.holders > 1:
                page = self._copy_on_write(pending, space, pointer, page)
            pending.pages.append(page)
        if work.stored or min(work.inputs) < 0:
            slots = self._spaces[instance, ResourceKind.EMBEDDING].held
            pointers = [pointer for _, pointer in work.stored]
            pointers += [Pointer(-1 - value) for value in work.inputs if value < 0]
            pending.embeddings = {pointer: slots[pointer] for pointer in pointers}
        if work.adapter is not None:
            pending.adapter = self._spaces[instance, ResourceKind.ADAPTER].held[work.adapter]

    def _copy_on_write(
        self, pending: PendingPass, space: Space, pointer: Pointer, source: Resource
    ) -> Resource:
        target = Resource(ResourceKind.KV_PAGE, None, holders=1)
        source.holders -= 1
        space.held[pointer] = target
        pending.copies.append((source, target))
        return target

    def use(self, pending: PendingPass) -> None:
        """Count the pass as a user of its resources and ask for room for its copies."""
        first_written = pending.first_written(self.page_size)
        for index, page in enumerate(pending.pages):
            page.users[pending, index] = None
            page.writers += index >= first_written
            if page.number is None:
                page.awaited_by(pending)
        for slot in pending.slots():
            slot.users[pending, 0] = None
        for source, target in list(pending.copies):
            source.users[pending, pending.pages.index(target)] = None
            if source.number is None:
                source.awaited_by(pending)
            arrival = self.room.next_arrival()
            self.room.enqueue(Copy(pending.instance, arrival, source.kind, pending, source, target))
        self.ask_back(pending)
        self.room.serve()

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
            request.resources += [page for page in away if page not in request.resources]

    def finish(self, pending: PendingPass) -> None:
        """The pass is over, well or not: it uses nothing any more."""
        self.room.protected.discard(pending.instance)
        first_written = pending.first_written(self.page_size)
        for index, page in enumerate(pending.pages):
            page.writers -= index >= first_written
            self._release(page, pending, index)
        for slot in pending.slots():
            self._release(slot, pending, 0)
        for source, target in pending.copies:
            self._release(source, pending, pending.pages.index(target))
        self.book.finished(pending)
        self.room.serve()

    def slots(
        self, instance: InstanceId, kind: ResourceKind, pointers: Iterable[Pointer]
    ) -> tuple[Resource, ...]:
        """What the pointers of a command stand for."""
        held = self._spaces[instance, kind].held
        return tuple(held[pointer] for pointer in pointers)

    def use_slots(self, command: PendingCommand) -> None:
        """Count a command as a user of its slots."""
        for slot in command.slots:
            slot.users[command, 0] = None

    def finish_command(self, command: PendingCommand) -> None:
        """The command is over, well or not."""
        for slot in command.slots:
            self._release(slot, command, 0)
        self.book.finished(command)
        self.room.serve()

    def _release(self, resource: Resource, pending: Pending, index: int) -> None:
        resource.users.pop((pending, index), None)  # a slot may be there by two pointers
        self.room.reclaim(resource)

    # --------------------------------------------------------------------- moving

    def movable(self, first: InstanceId, idle: Sequence[InstanceId]) -> Iterator[Resource]:
        """Pages that may move out for instance `first`, in this order (R5): exports that nobody
        uses, private pages of the `idle`, those of younger instances than the first in line.

        Not what an older one's pass needs, which would ask for it back at once and be first.
        """
        for (_, kind, _), export in self._exports.items():
            if kind is ResourceKind.KV_PAGE and not (export.importers or export.saving):
                yield from (page for page in export.resources if self._may_wait(page, first))
        younger = sorted((i for i in self._users if i > first and i not in idle), reverse=True)
        for victim in (*idle, *younger):
            space = self._spaces.get((victim, ResourceKind.KV_PAGE))
            if space and victim != first and victim not in self.room.protected:
                yield from (page for page in space.held.values() if self._may_wait(page, first))

    def _may_wait(self, page: Resource, first: InstanceId) -> bool:
        needing = {work.instance for work, _ in page.users}
        return page.private and all(
            instance > first and instance not in self.room.protected for instance in needing
        )

    # ------------------------------------------------------------------- the shell

    def answers(self) -> list[Answer]:
        """What has to be told since the last call."""
        answers, self.room.answers = self.room.answers, []
        return answers

    def waiting(self) -> int:
        """Requests in line."""
        return self.room.waiting()

    def check(self) -> None:
        """Assert that numbers add up: every one is free or in exactly one live resource."""
        live: dict[ResourceKind, dict[int, Resource]] = {kind: {} for kind in self.pools}
        holders: dict[Resource, int] = {}
        for space in self._spaces.values():
            for resource in space.held.values():
                holders[resource] = holders.get(resource, 0) + 1
        for export in self._exports.values():
            for resource in export.resources:
                holders[resource] = holders.get(resource, 0) + 1
        for resource, count in holders.items():
            assert resource.holders == count, f"{resource.holders} holders counted, {count} found"
            if resource.number is not None:
                other = live[resource.kind].setdefault(resource.number, resource)
                assert other is resource, f"number {resource.number} is owned twice"
        for kind, pool in self.pools.items():
            assert len(set(pool.free)) == len(pool.free), "a number is free twice"
            assert not set(pool.free) & set(live[kind]), "a number is free and in use"
        places = [r.place for r in holders if r.place is not None]
        assert len(set(places)) == len(places), "a place in host memory is owned twice"
        assert not set(places) & set(self.room.host.free), "a place is free and in use"
