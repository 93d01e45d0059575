"""Which KV pages may move to host memory, and which of them first (contract R5). A pure core."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from pie.ids import InstanceId, ResourceKind

from .hazards import Users
from .passes import Resource
from .pools import Export, Exports, Spaces
from .room import Room


@attrs.frozen(eq=False)
class Victims:
    """Chooses among the pages of one model that are in the pool; changes nothing."""

    _spaces: Spaces
    _exports: Exports
    _room: Room
    _users: Users

    def movable(self, first: InstanceId, idle: Sequence[InstanceId]) -> Iterator[Resource]:
        """Pages that may move out for instance `first`, in this order (R5): exports that nobody
        uses, private pages of the `idle`, those of younger instances than the first in line.

        Not what an older one's pass needs, which would ask for it back at once and be first.
        """
        for export in self._unused_exports():
            yield from (page for page in export.resources if self._may_wait(page, first))
        younger = [i for i in self._instances() if i > first and i not in idle]
        for victim in (*idle, *sorted(younger, reverse=True)):
            space = self._spaces.get((victim, ResourceKind.KV_PAGE))
            if space and victim != first and victim not in self._room.protected:
                held = space.held.values()
                yield from (page for page in held if self._may_wait(page, first, victim))

    def _may_wait(self, page: Resource, first: InstanceId, near: InstanceId | None = None) -> bool:
        return page.private and all(
            work.instance > first and work.instance not in self._room.protected
            for work, _ in self._users.of(page, near)
        )

    def movable_past(self, instance: InstanceId) -> list[Resource]:
        """Pages that may move out for `instance` where nobody can run: all private ones that it
        does not need itself, those that no pass waits for first, then those of the youngest.
        """
        exports = (page for export in self._unused_exports() for page in export.resources)
        pages = [
            page
            for victim in sorted(self._instances(), reverse=True)
            if victim != instance
            for page in self._spaces[victim, ResourceKind.KV_PAGE].held.values()
        ]
        free = [
            page
            for page in (*exports, *pages)
            if page.private
            and not any(work.instance == instance for work, _ in self._users.of(page, instance))
        ]
        return sorted(free, key=lambda page: page.uses > 0)

    def _instances(self) -> Iterator[InstanceId]:
        return (instance for instance, kind in self._spaces if kind is ResourceKind.KV_PAGE)

    def _unused_exports(self) -> Iterator[Export]:
        """Entries of KV pages that nobody is about to import or save."""
        for (_, kind, _), export in self._exports.items():
            if kind is ResourceKind.KV_PAGE and not (export.importers or export.saving):
                yield export
