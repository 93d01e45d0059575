"""The page table of one model: who refers to which page or slot, and who waits for room.

A pure core. Physical resources are reference counted: virtual ids of instances and export
entries hold them, pending passes use them, and a number is reused only when nobody does either
(contract R1 to R4, R6, R8). Embedding slots are kept the same way.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence
from typing import Any

from pie.errors import Closed, GuestError, OutOfResources
from pie.ids import InstanceId, Pointer, ResourceKind

from .passes import PendingPass, Resource
from .pools import NAMES, Answer, Export, Pool, Request, Space

ExportKey = tuple[str, ResourceKind, str]


class PageTable:
    """Everything about one model's pages and slots. No clock, channel or tensor."""

    def __init__(self, page_size: int, pages: int, embedding_slots: int) -> None:
        self.page_size = page_size
        self.pools = {
            ResourceKind.KV_PAGE: Pool(pages),
            ResourceKind.EMBEDDING: Pool(embedding_slots),
            ResourceKind.ADAPTER: Pool(0),
        }
        self._users: dict[InstanceId, str] = {}
        self._spaces: dict[tuple[InstanceId, ResourceKind], Space] = {}
        self._lines: dict[ResourceKind, list[Request]] = {kind: [] for kind in self.pools}
        self._arrivals = 0
        self._exports: dict[ExportKey, Export] = {}
        self._unwritten: dict[ExportKey, Export] = {}
        """Those of them that wait for passes: the only ones the end of a pass may concern."""
        self._answers: list[Answer] = []

    # ------------------------------------------------------------------ instances

    def open(self, instance: InstanceId, user: str) -> None:
        self._users[instance] = user
        for kind in self.pools:
            self._spaces[instance, kind] = Space()

    def close(self, instance: InstanceId) -> None:
        """Take back handles, requests and unwritten exports; visible exports stay (R6, R10)."""
        left: list[Any] = []
        for line in self._lines.values():
            left += [r.token for r in line if r.instance == instance and r.copy is None]
            line[:] = [r for r in line if r.instance != instance or r.copy is not None]
        for key, export in list(self._unwritten.items()):
            left += [token for importer, token in export.importers if importer == instance]
            export.importers = [i for i in export.importers if i[0] != instance]
            if export.owner == instance:
                self._drop_export(key, "its exporter has ended")
        self.drop_handles(instance)
        for kind in self.pools:
            del self._spaces[instance, kind]
        del self._users[instance]
        gone = Closed(f"instance {instance} has ended")
        self._answers += [Answer(token, error=gone) for token in left]
        self._serve()

    def drop_handles(self, instance: InstanceId) -> None:
        """The instance lets go of all it holds; what its passes refer to stays for them."""
        for kind in self.pools:
            self.free(instance, kind, list(self._spaces[instance, kind].held))

    def holds(self, instance: InstanceId, kind: ResourceKind) -> int:
        """How many resources of a kind the instance has handles of."""
        return len(self._spaces[instance, kind].held)

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
        self._enqueue(Request(instance, self._arrivals, kind, count, token))

    def _enqueue(self, request: Request) -> None:
        self._arrivals += 1
        insort(self._lines[request.kind], request)
        self._serve()

    def _serve(self) -> None:
        for kind, line in self._lines.items():
            while line and self._grant(self.pools[kind], line[0]):
                line.pop(0)

    def _grant(self, pool: Pool, request: Request) -> bool:
        """Give the first in line what it wants, if there is room for all of it."""
        if request.copy is not None:
            return self._grant_copy(pool, *request.copy)
        if len(pool.free) < request.count:
            return False
        space = self._spaces[request.instance, request.kind]
        new = (Resource(request.kind, pool.take()) for _ in range(request.count))
        self._answers.append(Answer(request.token, tuple(space.add(r) for r in new)))
        return True

    def _grant_copy(
        self, pool: Pool, pending: PendingPass, source: Resource, target: Resource
    ) -> bool:
        if pending.finished and not target.holders and not target.users:
            return True  # nobody needs it any more
        if not pending.finished and self._may_take_over(source):
            target.number, source.number = source.number, None
            pending.copies.remove((source, target))
        elif not pool.free:
            return False
        else:
            target.number = pool.take()
            if not pending.finished:
                pool.stale.discard(target.number)  # the copy overwrites all of it
        for waiting in target.awaiting:
            waiting.ungranted -= 1
        target.awaiting.clear()
        return True

    @staticmethod
    def _may_take_over(source: Resource) -> bool:
        """Whether everybody else has let go, so that the page itself becomes the copy.

        The copy must be its only use: the same pass may read the original by another pointer.
        """
        return source.holders == 0 and len(source.users) == 1

    def free(self, instance: InstanceId, kind: ResourceKind, pointers: Iterable[Pointer]) -> None:
        """Drop handles the instance holds (R2)."""
        space = self._spaces[instance, kind]
        for pointer in pointers:
            self._reclaim(space.remove(pointer))
        self._serve()

    def _reclaim(self, resource: Resource) -> None:
        if resource.holders == 0 and not resource.users and resource.number is not None:
            self.pools[resource.kind].give_back(resource.number)
            resource.number = None

    # -------------------------------------------------------------------- exports

    def export(
        self, instance: InstanceId, kind: ResourceKind, pointers: Sequence[Pointer], name: str
    ) -> None:
        key = (self._users[instance], kind, name)
        if key in self._exports:
            raise GuestError(f"export-resources: the name {name!r} exists already (R6)")
        held = self._spaces[instance, kind].held
        resources = [held[pointer] for pointer in pointers]
        unwritten: set[PendingPass] = set()
        for resource in resources:
            resource.holders += 1
            unwritten |= self._writers(instance, resource)
        self._exports[key] = export = Export(instance, resources, unwritten)
        if unwritten:
            self._unwritten[key] = export

    def _writers(self, instance: InstanceId, resource: Resource) -> set[PendingPass]:
        found: set[PendingPass] = set()
        for user, index in resource.users:
            if user.instance != instance:
                continue
            if resource.kind is ResourceKind.EMBEDDING:
                writes = any(user.embeddings[p] is resource for _, p in user.work.stored)
            else:
                _, first, end = user.spans(resource, index, self.page_size)
                writes = first < end
            if writes:
                found.add(user)
        return found

    def import_(self, instance: InstanceId, kind: ResourceKind, name: str, token: Any) -> None:
        """Ask for handles of an export; the answer comes by `answers`."""
        export = self._exports.get((self._users[instance], kind, name))
        if export is None:
            raise GuestError(f"import-resources: nothing is exported as {name!r} (R6)")
        export.importers.append((instance, token))
        if not export.unwritten:
            self._hand_out(export)

    def _hand_out(self, export: Export) -> None:
        for instance, token in export.importers:
            space = self._spaces[instance, export.resources[0].kind] if export.resources else None
            pointers = tuple(space.add(r) for r in export.resources) if space else ()
            self._answers.append(Answer(token, pointers))
        export.importers.clear()

    def release(self, instance: InstanceId, kind: ResourceKind, name: str) -> None:
        """Drop an entry; an unknown name does nothing."""
        key = (self._users[instance], kind, name)
        if key in self._exports:
            self._drop_export(key, "it was released")
            self._serve()

    def _drop_export(self, key: ExportKey, reason: str) -> None:
        export = self._exports.pop(key)
        self._unwritten.pop(key, None)
        for _, token in export.importers:
            error = GuestError(f"import-resources: the export {key[2]!r} is gone: {reason} (R6)")
            self._answers.append(Answer(token, error=error))
        for resource in export.resources:
            resource.holders -= 1
            self._reclaim(resource)

    def exports(self, instance: InstanceId, kind: ResourceKind) -> list[tuple[str, int]]:
        """The visible names of the instance's user with their sizes, by name."""
        user = self._users[instance]
        return sorted(
            (name, len(export.resources))
            for (owner, of, name), export in self._exports.items()
            if owner == user and of is kind and not export.unwritten
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
                page.awaiting.append(pending)
                pending.ungranted += 1
        for slot in pending.embeddings.values():
            slot.users[pending, 0] = None
        for source, target in list(pending.copies):
            source.users[pending, pending.pages.index(target)] = None
            request = Request(
                pending.instance, self._arrivals, source.kind, 1, None, (pending, source, target)
            )
            self._enqueue(request)

    def finish(self, pending: PendingPass) -> None:
        """The pass is over, well or not: it uses nothing any more."""
        first_written = pending.first_written(self.page_size)
        for index, page in enumerate(pending.pages):
            page.writers -= index >= first_written
            self._release(page, pending, index)
        for slot in pending.embeddings.values():
            self._release(slot, pending, 0)
        for source, target in pending.copies:
            self._release(source, pending, pending.pages.index(target))
        for key, export in list(self._unwritten.items()):
            if pending in export.unwritten:
                export.unwritten.discard(pending)
                self._after_write(key, export, pending)
        self._serve()

    def _release(self, resource: Resource, pending: PendingPass, index: int) -> None:
        resource.users.pop((pending, index), None)  # a slot may be there by two pointers
        self._reclaim(resource)

    def _after_write(self, key: ExportKey, export: Export, pending: PendingPass) -> None:
        if pending.error is not None:
            self._drop_export(key, f"a pass that should have written it failed: {pending.error}")
        elif not export.unwritten:
            del self._unwritten[key]
            self._hand_out(export)

    # ------------------------------------------------------------------- the shell

    def answers(self) -> list[Answer]:
        """What has to be told since the last call."""
        answers, self._answers = self._answers, []
        return answers

    def waiting(self) -> int:
        """Requests in line."""
        return sum(len(line) for line in self._lines.values())

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
