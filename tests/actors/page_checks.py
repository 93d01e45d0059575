"""What must be true of a page table at any time, seen beside its plain model."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from pie.actors.pages import PageTable
from pie.actors.passes import Pending, PendingPass, Resource
from pie.actors.requests import Copy
from pie.ids import ResourceKind

from .page_model import PlainPage, PlainTable


def _pairs(table: PageTable, plain: PlainTable) -> set[tuple[Resource, PlainPage]]:
    """What handles and entries refer to, in the table and in the model."""
    pairs = []
    for place, held in plain.spaces.items():
        found = table._spaces[place].held
        assert found.keys() == held.keys()
        pairs += [(found[pointer], page) for pointer, page in held.items()]
    assert table._exports.keys() == plain.exports.keys()
    for key, export in plain.exports.items():
        resources = table._exports[key].resources
        pairs += zip(resources, export.pages, strict=True)
    return set(pairs)


def plain_of(table: PageTable, plain: PlainTable) -> dict[Resource, PlainPage]:
    """The model's page of each that handles and entries refer to."""
    return dict(_pairs(table, plain))


def check_names(table: PageTable, plain: PlainTable) -> None:
    """Virtual ids and entries are the plain ones, and so are their reference counts."""
    one_to_one = _pairs(table, plain)
    assert len({resource for resource, _ in one_to_one}) == len(one_to_one)
    assert len({page for _, page in one_to_one}) == len(one_to_one)
    for resource, page in one_to_one:
        assert resource.holders == plain.references(page)
    for instance, user in plain.users.items():
        for kind in ResourceKind:
            assert table.exports(instance, kind) == plain.visible(user, kind)


def resources(table: PageTable, pending: Iterable[PendingPass]) -> set[Resource]:
    """Everything that handles, entries and passes refer to."""
    held = {r for space in table._spaces.values() for r in space.held.values()}
    held |= {r for export in table._exports.values() for r in export.resources}
    for work in pending:
        held |= {*work.pages, *(source for source, _ in work.copies)}
    return held


def check_users(table: PageTable, pending: Collection[PendingPass]) -> None:
    """What is used is used by the pending passes."""
    uses: dict[Resource, list[tuple[Pending, int]]] = {}
    writers: dict[Resource, int] = {}
    for work in pending:
        for index, page in enumerate(work.pages):
            uses.setdefault(page, []).append((work, index))
            writers[page] = writers.get(page, 0) + (index >= work.first_written)
        for source, target in work.copies:
            uses.setdefault(source, []).append((work, work.pages.index(target)))
    for resource in resources(table, pending):
        found = list(table.users.of(resource))
        assert sorted(found, key=_entry) == sorted(uses.get(resource, []), key=_entry)
        assert resource.uses == len(found)
        assert resource.writers == writers.get(resource, 0)


def _entry(use: tuple[Pending, int]) -> tuple[int, int]:
    return use[0].sequence, use[1]


def check_lines(table: PageTable, plain: PlainTable) -> None:
    """Lines are by age, and the first in each does not fit."""
    for kind, line in table.room._lines.items():
        ages = [(request.instance, request.arrival) for request in line]
        assert ages == sorted(ages)
        if line:
            assert line[0].wanted() > len(table.pools[kind].free)
        for request in line:
            if not isinstance(request, Copy):
                assert request.instance in plain.users
