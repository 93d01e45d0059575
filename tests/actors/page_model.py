"""What the page table means, in its plainest form: virtual ids, lists of slots, eager copies.

Nothing waits here and nothing has a number: a write happens when it is submitted, a copy on
write is a new list. `PlainTable` says which pointers are given out and what a pass must read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import attrs

from pie.ids import InstanceId, Pointer, ResourceKind

SIZE = 3
"""Slots of a page."""

Cell: TypeAlias = tuple[int, frozenset[int]]
"""A slot's value, and the passes that must not have failed for it to be there."""
Key: TypeAlias = tuple[str, ResourceKind, str]

PAGE = ResourceKind.KV_PAGE
LOST = -1
"""Stands for a pass that failed, in the place of those that wrote what was lost."""


def value(sequence: int, slot: int) -> int:
    """What pass `sequence` writes to logical slot `slot` of its pages; never 0."""
    return sequence * 1000 + slot + 1


@attrs.define(eq=False)
class PlainPage:
    """A page or slot and its contents, zeros until written (contract R3)."""

    cells: list[Cell] = attrs.field(factory=lambda: [(0, frozenset())] * SIZE)


@attrs.define(eq=False)
class PlainExport:
    """An entry: what it stands for, the passes that it waits for (R6)."""

    owner: InstanceId
    pages: list[PlainPage]
    unwritten: set[int]


@attrs.frozen(eq=False)
class PlainPass:
    """A submitted pass: the pages it uses, what it must read in them, which it writes."""

    instance: InstanceId
    pages: list[PlainPage]
    reads: list[list[Cell]]
    """By listed page, up to the pass's length."""
    writes: list[PlainPage]


@attrs.define(eq=False)
class PlainTable:
    """Instances with their pages, exports, and the passes that are not finished."""

    users: dict[InstanceId, str] = attrs.field(factory=dict)
    spaces: dict[tuple[InstanceId, ResourceKind], dict[Pointer, PlainPage]] = attrs.field(
        factory=dict
    )
    exports: dict[Key, PlainExport] = attrs.field(factory=dict)
    passes: dict[int, PlainPass] = attrs.field(factory=dict)
    failed: set[int] = attrs.field(factory=lambda: {LOST})

    def open(self, instance: InstanceId, user: str) -> None:
        self.users[instance] = user
        for kind in ResourceKind:
            self.spaces[instance, kind] = {}

    def close(self, instance: InstanceId) -> None:
        for key, export in list(self.exports.items()):
            if export.owner == instance and export.unwritten:
                del self.exports[key]
        for kind in ResourceKind:
            del self.spaces[instance, kind]
        del self.users[instance]

    def add(self, instance: InstanceId, kind: ResourceKind, page: PlainPage) -> Pointer:
        """Give a page the smallest free virtual id (R1)."""
        held = self.spaces[instance, kind]
        pointer = next(p for p in map(Pointer, range(len(held) + 1)) if p not in held)
        held[pointer] = page
        return pointer

    def counted(self, user: str) -> int:
        """Handles of KV pages that a user's instances have, and the pages of its entries."""
        mine = [self.spaces[i, PAGE] for i, owner in self.users.items() if owner == user]
        entries = [
            e.pages for (of, kind, _), e in self.exports.items() if (of, kind) == (user, PAGE)
        ]
        return sum(map(len, (*mine, *entries)))

    def free(self, instance: InstanceId, kind: ResourceKind, pointers: Sequence[Pointer]) -> None:
        for pointer in pointers:
            del self.spaces[instance, kind][pointer]

    def references(self, page: PlainPage) -> int:
        """Virtual ids and entries that refer to it: more than one makes it shared (R8)."""
        held = sum(p is page for space in self.spaces.values() for p in space.values())
        return held + sum(p is page for export in self.exports.values() for p in export.pages)

    def export(self, instance: InstanceId, key: Key, pointers: Sequence[Pointer]) -> None:
        pages = [self.spaces[instance, key[1]][pointer] for pointer in pointers]
        unwritten = {
            sequence
            for sequence, work in self.passes.items()
            if work.instance == instance and any(page in pages for page in work.writes)
        }
        self.exports[key] = PlainExport(instance, pages, unwritten)

    def submit(
        self, sequence: int, instance: InstanceId, pointers: Sequence[Pointer], length: int, n: int
    ) -> None:
        """Copy what is shared and written, write it, and note what the pass must read."""
        held = self.spaces[instance, PAGE]
        start = length - n
        pages = []
        for index, pointer in enumerate(pointers):
            page = held[pointer]
            if index >= start // SIZE and self.references(page) > 1:
                copied = [(old, needs | {sequence}) for old, needs in page.cells]
                page = held[pointer] = PlainPage(copied)
            pages.append(page)
        for slot in range(start, length):
            pages[slot // SIZE].cells[slot % SIZE] = value(sequence, slot), frozenset({sequence})
        reads = [page.cells[: length - index * SIZE] for index, page in enumerate(pages)]
        self.passes[sequence] = PlainPass(instance, pages, reads, pages[start // SIZE :])

    def finish(self, sequence: int, *, failed: bool) -> None:
        """What waited for the pass is visible, or gone if it failed (R6)."""
        del self.passes[sequence]
        if failed:
            self.failed.add(sequence)
        for key, export in list(self.exports.items()):
            if sequence not in export.unwritten:
                continue
            export.unwritten.discard(sequence)
            if failed:
                del self.exports[key]

    def lose(self, page: PlainPage) -> None:
        """Its contents are lost."""
        page.cells[:] = [(0, frozenset({LOST}))] * SIZE

    def reads_what_is_lost(self, sequence: int) -> bool:
        """Whether a pass reads something that was lost and not written since."""
        cells = (cell for page in self.passes[sequence].reads for cell in page)
        return any(LOST in needs for _, needs in cells)

    def visible(self, user: str, kind: ResourceKind) -> list[tuple[str, int]]:
        return sorted(
            (name, len(export.pages))
            for (owner, of, name), export in self.exports.items()
            if (owner, of) == (user, kind) and not export.unwritten
        )

    def known(self, cells: Sequence[Cell]) -> Iterator[tuple[int, int]]:
        """(slot, value) of those that no failed pass should have written."""
        for slot, (content, needs) in enumerate(cells):
            if not needs & self.failed:
                yield slot, content


@attrs.frozen
class Question:
    """An allocation or import that is not answered yet."""

    instance: InstanceId
    kind: ResourceKind
    wanted: int | PlainExport
    """How many new ones, or what is imported."""

    @property
    def count(self) -> int:
        return len(self.wanted.pages) if isinstance(self.wanted, PlainExport) else self.wanted
