"""The page table of one model: who refers to which page or slot, and who waits for room.

A pure core. Physical resources are reference counted: virtual ids of instances and export
entries hold them, pending passes use them, and a number is reused only when nobody does either
(contract R1 to R4, R6, R8). Embedding slots are kept the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pie.errors import Closed, OutOfResources
from pie.ids import InstanceId, Pointer, ResourceKind

from .audit import audit_holders, audit_numbers, audit_places, audit_quotas, audit_users
from .binding import Binding
from .exports import ExportBook
from .hazards import Users
from .passes import Pending, Resource
from .pools import NAMES, Answer, ExportKey, Exports, HostPool, Importer, Pool, Space, Spaces
from .quotas import Quotas
from .requests import Allocation
from .room import Room
from .victims import Victims

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
        self._spaces: Spaces = {}
        self._exports: Exports = {}
        self.users = Users()
        self._quotas = Quotas(max_pages_per_user)
        self.book = ExportBook(
            self._exports, self.room, self.users, page_size, self._quotas, keeps=keeps_exports
        )
        self.binding = Binding(self._spaces, self.room, self.users, self.book, page_size)
        self.victims = Victims(self._spaces, self._exports, self.room, self.users)

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
        """Up to `count` new resources that nobody will miss (contract X10).

        With those it has that are in host memory it never holds more than the pool can.
        """
        space, pool = self._spaces[instance, kind], self.pools[kind]
        room = max(0, pool.capacity - self.holds(instance, kind))
        count = space.spare(min(count, room, self.room.spare(kind)))
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
