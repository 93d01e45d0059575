"""The order between pending work that follows from what it touches.

Whoever changes a slot waits for those that use it, and those that use it for whoever changes it.
Slots of a page are compared, not pages, so that consecutive passes of one sequence may share a
step (contract K5, Q1). Uses are only counted in the resources; who they are is looked up where a
count says that somebody is there, so that a pass with a long history costs little.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import attrs

from pie.ids import InstanceId, ResourceKind

from .passes import NOBODY, Group, Pending, PendingPass, Resource


@attrs.define(eq=False)
class Users:
    """All pending work that uses resources, by instance, in order of submission."""

    _of: dict[InstanceId, Group] = attrs.field(factory=dict)

    def add(self, work: Pending) -> None:
        self._of.setdefault(work.instance, {})[work] = None

    def remove(self, work: Pending) -> None:
        mine = self._of[work.instance]
        del mine[work]
        if not mine:
            del self._of[work.instance]

    def __iter__(self) -> Iterator[Pending]:
        return itertools.chain.from_iterable(self._of.values())

    def instance(self, instance: InstanceId) -> Group:
        """What the instance has pending."""
        return self._of.get(instance, NOBODY)

    def of(
        self, resource: Resource, near: InstanceId | None = None
    ) -> Iterator[tuple[Pending, int]]:
        """Each (work, place in its page list) that uses `resource`.

        Looks at `near` first, and at others only while some of those that were counted are missing.
        """
        left = resource.uses
        if near is not None and left:
            for found in _uses_in(self.instance(near), resource):
                left -= 1
                yield found
        if left:
            for instance, group in self._of.items():
                if instance != near:
                    yield from _uses_in(group, resource)


def _uses_in(group: Group, resource: Resource) -> Iterator[tuple[Pending, int]]:
    for work in group:
        for place in work.places().get(resource, ()):
            yield work, place


def writers_of(
    resource: Resource, instance: InstanceId, users: Users, page_size: int
) -> set[Pending]:
    """What `instance` has submitted that will change `resource`."""
    found: set[Pending] = set()
    own = users.instance(instance) if resource.uses else NOBODY
    for work, index in _uses_in(own, resource):
        if resource.kind is ResourceKind.KV_PAGE and isinstance(work, PendingPass):
            _, first, end = work.spans(resource, index, page_size)
            writes = first < end
        else:
            writes = work.writes_slot(resource)
        if writes:
            found.add(work)
    return found


def order_by_pages(new: PendingPass, users: Users, notable: Iterable[int], page_size: int) -> None:
    """Make `new` wait for the pending passes whose pages conflict with its own.

    `notable` are places in its page list, with those of all pages that anybody writes.
    """
    for index in notable:
        page = new.pages[index]
        if page.writers or (page.uses and index >= new.first_written):
            _order_on(new, users, page, index, page_size)
    for source, target in new.copies:
        if source.writers:
            _order_on(new, users, source, new.pages.index(target), page_size)


def _order_on(new: PendingPass, users: Users, page: Resource, index: int, page_size: int) -> None:
    reads, first, end = new.spans(page, index, page_size)
    copied = new.pages[index] is not page
    for other, at in users.of(page, new.instance):
        if not isinstance(other, PendingPass):
            continue
        other_reads, other_first, other_end = other.spans(page, at, page_size)
        overwrites = first < end and first < other_reads
        depends = other_first < min(other_end, reads)
        if overwrites or (depends and copied):
            new.wait_for(other, same_step=False, data=depends)
        elif depends:
            new.wait_for(other, same_step=True, data=True)


def order_by_slots(new: Pending, users: Users, slots: Sequence[Resource]) -> None:
    """Make `new` wait for the earlier ones that change the slots it uses, or use those it changes.

    Never within a step: slots are read before its rows and written after them (K5).
    """
    for slot in slots:
        for other, _ in users.of(slot, new.instance):
            if other.writes_slot(slot) or new.writes_slot(slot):
                new.wait_for(other, same_step=False, data=other.writes_slot(slot))
