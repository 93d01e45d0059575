"""What is exported under which name, until when, and what has to happen to its file.

A pure core. An entry becomes visible, and its importers get their handles, when the passes that
write its resources are done (contract R6) and, if it is kept, when its file is written (R7). Only
KV pages are kept; exports of embedding and adapter slots end with the engine.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import attrs

from pie.errors import GuestError, PieError
from pie.ids import InstanceId, ResourceKind
from pie.probes import sometimes

from .hazards import Users, writers_of
from .passes import Pending, Resource
from .pools import Answer, Errand, Export, ExportKey, Exports, Importer
from .quotas import Holdings, Quotas
from .requests import Import
from .room import Room


class UnknownExport(GuestError):
    """An import names something that does not exist."""

    def __init__(self, name: str) -> None:
        super().__init__(f"import-resources: nothing is exported as {name!r} (R6)")


def _gone(key: ExportKey, reason: str) -> GuestError:
    return GuestError(f"import-resources: the export {key[2]!r} is gone: {reason} (R6)")


@attrs.define(eq=False)
class ExportBook:
    """The entries of one model."""

    entries: Exports
    _room: Room
    _users: Users
    _page_size: int
    _quotas: Quotas
    _keeps: bool = attrs.field(kw_only=True)
    """Whether exports of KV pages are kept in files."""
    errands: list[tuple[Errand, ExportKey, Export]] = attrs.field(factory=list)
    """What has to be done about files, in this order."""
    _pending: dict[ExportKey, Export] = attrs.field(factory=dict)
    """Entries that wait for passes or for their file, and whose importers do."""

    def add(self, key: ExportKey, owner: InstanceId, resources: list[Resource], token: Any) -> None:
        """Register an entry; GuestError if there is one of this name, or no more may be.

        The exporter is told now; if the entry is kept, when it is on disk: what a guest does
        after its export, like setting a flag for others, then never outlives the export.
        """
        if key in self.entries:
            raise GuestError(f"export-resources: the name {key[2]!r} exists already (R6)")
        holdings = self._holdings(key)
        if holdings is not None:
            holdings.take(len(resources), "export-resources")
        unwritten: set[Pending] = set()
        for resource in resources:
            resource.holders += 1
            unwritten |= writers_of(resource, owner, self._users, self._page_size)
        export = Export(owner, resources, holdings, unwritten, exporter=token)
        self.entries[key] = export
        if not self._is_kept(key):
            self._tell_exporter(export)
        if unwritten:
            self._pending[key] = export
        else:
            self._written(key, export)

    def _holdings(self, key: ExportKey) -> Holdings | None:
        return self._quotas.of(key[0]) if key[1] is ResourceKind.KV_PAGE else None

    def _is_kept(self, key: ExportKey) -> bool:
        return self._keeps and key[1] is ResourceKind.KV_PAGE

    def _tell_exporter(self, export: Export, error: PieError | None = None) -> None:
        if export.exporter is not None:
            value = None if error else True
            self._room.answers.append(Answer(export.exporter, value, error))
            export.exporter = None

    def finished(self, done: Pending) -> None:
        """A pass or command is over: entries that waited for it become visible, or are gone."""
        if not self._pending:
            return
        for key, export in list(self._pending.items()):
            if done not in export.unwritten:
                continue
            export.unwritten.discard(done)
            if done.error is not None:
                sometimes("an export fails with its writer")
                reason = f"a pass that should have written it failed: {done.error}"
                self._drop(key, _gone(key, reason))
            elif not export.unwritten:
                self._written(key, export)

    def _written(self, key: ExportKey, export: Export) -> None:
        """No pass writes it any more."""
        if self._is_kept(key):
            export.kept = export.saving = True
            self._pending[key] = export
            self.errands.append((Errand.SAVE, key, export))
        else:
            self._settle(key, export)

    def _settle(self, key: ExportKey, export: Export) -> None:
        """Whoever waits for its contents may have them."""
        self._pending.pop(key, None)
        for importer in list(export.importers):
            self._bring_back(export, importer)

    def import_(self, key: ExportKey, importer: Importer) -> None:
        """Give `importer` handles, now or later; UnknownExport if there is no such entry,
        LimitExceeded if its user may not have so many.
        """
        export = self.entries.get(key)
        if export is None:
            raise UnknownExport(key[2])
        importer.space.take(len(export.resources), "import-resources")
        export.importers.append(importer)
        if key in self._pending:
            if export.unwritten:
                sometimes("an import waits for its writers")
            else:
                sometimes("an import waits for a file")
            return
        if export.away:
            sometimes("an export is read from its file")
            self._pending[key] = export
            self.errands.append((Errand.LOAD, key, export))
        else:
            self._bring_back(export, importer)

    def _bring_back(self, export: Export, importer: Importer) -> None:
        """Hand out what was exported, when all of it is in the pool again."""
        if all(resource.place is None for resource in export.resources):
            self._room.answers += export.hand_out(importer)
            return
        sometimes("an import brings pages back")
        arrival, kind = self._room.next_arrival(), ResourceKind.KV_PAGE
        resources = export.resources
        request = Import(importer.instance, arrival, kind, resources, export, importer)
        self._room.enqueue(request)
        self._room.serve()

    def leave(self, instance: InstanceId, error: PieError) -> None:
        """An instance has ended: it wants no handles, and what it has not written is gone (R6)."""
        for key, export in list(self._pending.items()):
            for importer in [i for i in export.importers if i.instance == instance]:
                sometimes("who waits for an export leaves")
                self._room.answers += export.turn_away(importer, error)
            if export.owner == instance and export.unwritten:
                sometimes("an exporter leaves before its pages are written")
                self._tell_exporter(export, error)
                self._drop(key, _gone(key, "its exporter has ended"))

    def release(self, key: ExportKey) -> None:
        """Drop an entry; an unknown name does nothing."""
        if key in self.entries:
            self._drop(key, _gone(key, "it was released"))
            self._room.serve()

    def _drop(self, key: ExportKey, error: PieError) -> None:
        export = self.entries.pop(key)
        self._pending.pop(key, None)
        self._tell_exporter(export)
        for importer in list(export.importers):
            self._room.answers += export.turn_away(importer, error)
        for resource in export.resources:
            resource.holders -= 1
            self._room.reclaim(resource)
        if export.holdings is not None:
            export.holdings.give_back(len(export.resources))
        if export.kept:
            self.errands.append((Errand.DELETE, key, export))

    def lose_pages(self, pages: Collection[Resource], error: PieError) -> list[ExportKey]:
        """The contents of `pages` are lost: the entries that had some, which are gone unless they
        are in a file.
        """
        lost = set(pages)
        gone: list[ExportKey] = []
        for key, export in list(self.entries.items()):
            if lost.isdisjoint(export.resources):
                continue
            in_file = export.kept and not export.saving
            if in_file:
                export.kept = False  # the entry goes, and not its file
            self._tell_exporter(export, error)
            self._drop(key, _gone(key, str(error)))
            if in_file:
                self.restore(key[0], key[2], len(export.resources))
            else:
                gone.append(key)
        return gone

    # Files. What they are is the shell's; it says here what became of the errands.

    def restore(self, user: str, name: str, count: int) -> None:
        """There is a file of `count` KV pages from an earlier run: kept, whatever the quota is."""
        holdings = self._quotas.of(user)
        holdings.pages += count
        resources = [Resource(ResourceKind.KV_PAGE, None, holders=1) for _ in range(count)]
        export = Export(None, resources, holdings, kept=True, away=True)
        self.entries[user, ResourceKind.KV_PAGE, name] = export

    def current(self, key: ExportKey, export: Export) -> bool:
        """Whether the entry has not been dropped meanwhile."""
        return self.entries.get(key) is export

    def saved(self, key: ExportKey, export: Export) -> None:
        """Its file is written."""
        if self.current(key, export):
            export.saving = False
            self._tell_exporter(export)
            self._settle(key, export)

    def loaded(self, key: ExportKey, export: Export) -> list[int]:
        """Its file has been read: the places for its pages, none if nobody wants them any more."""
        if not self.current(key, export):
            sometimes("an export is released while its file is read")
            return []
        places: list[int] = []
        if export.importers:
            export.away = False
            places = [self._room.host.take_extra() for _ in export.resources]
            for resource, place in zip(export.resources, places, strict=True):
                resource.place = place
        self._settle(key, export)
        return places

    def lost(self, key: ExportKey, export: Export, error: PieError) -> None:
        """Its file cannot be written or read."""
        if self.current(key, export):
            sometimes("an export is lost with its file")
            self._tell_exporter(export, error)
            self._drop(key, error)
            self._room.serve()
