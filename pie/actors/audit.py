"""What must be true of a page table at any moment, checked from its parts.

Slow next to what it checks: for tests and simulations only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pie.ids import ResourceKind

from .passes import Pending, PendingCommand, PendingPass, Resource
from .pools import Export, Pool, Space
from .quotas import Holdings
from .requests import Allocation
from .room import Request, Room


def audit_holders(spaces: Iterable[Space], entries: Iterable[list[Resource]]) -> set[Resource]:
    """Assert that the holders of resources are virtual ids and entries; all that are held."""
    holders: Counter[Resource] = Counter()
    for space in spaces:
        holders.update(space.held.values())
    for resources in entries:
        holders.update(resources)
    for resource, count in holders.items():
        assert resource.holders == count, f"{resource.holders} holders counted, {count} found"
    return set(holders)


def audit_users(pending: Iterable[Pending], held: set[Resource]) -> set[Resource]:
    """Assert that the uses of each resource are those of what is pending; all held or used ones."""
    uses: Counter[Resource] = Counter(dict.fromkeys(held, 0))
    writers: Counter[Resource] = Counter()
    for work in pending:
        uses.update(_uses(work))
        if isinstance(work, PendingPass):
            writers.update(work.pages[work.first_written :])
    for resource, count in uses.items():
        assert resource.uses == count, f"{resource.uses} uses counted, {count} found"
        wrote = writers[resource]
        assert resource.writers == wrote, f"{resource.writers} writers counted, {wrote} found"
    return set(uses)


def _uses(work: Pending) -> list[Resource]:
    if isinstance(work, PendingCommand):
        return list(work.slots)
    assert isinstance(work, PendingPass)
    return [*work.pages, *work.slots, *(source for source, _ in work.copies)]


def audit_numbers(
    pools: dict[ResourceKind, Pool], live: Iterable[Resource], *, whole: bool
) -> None:
    """Assert that no number is owned twice, nor free and in use; if `whole`, that none is lost."""
    owned: dict[ResourceKind, list[int]] = {kind: [] for kind in pools}
    for resource in live:
        if resource.number is not None:
            owned[resource.kind].append(resource.number)
    for kind, pool in pools.items():
        numbers = owned[kind]
        assert len(set(numbers)) == len(numbers), f"a number is owned twice: {sorted(numbers)}"
        assert len(set(pool.free)) == len(pool.free), "a number is free twice"
        both = set(pool.free) & set(numbers)
        assert not both, f"numbers {sorted(both)} are free and in use"
        lost = pool.capacity - len(pool.free) - len(numbers)
        assert not (whole and lost), f"{lost} numbers of kind {kind.name} are lost"


def audit_places(room: Room, live: Iterable[Resource], *, whole: bool) -> None:
    """The same for places in host memory."""
    places = [resource.place for resource in live if resource.place is not None]
    places += [returned.place for returned in room.returned]
    host = room.host
    assert len(set(places)) == len(places), "a place in host memory is owned twice"
    both = set(places) & set(host.free)
    assert not both, f"places {sorted(both)} are free and in use"
    assert len(set(host.free)) == len(host.free), "a place is free twice"
    own = [place for place in places if place < host.capacity]
    lost = host.capacity - len(host.free) - len(own)
    assert not (whole and lost), f"{lost} places in host memory are lost"


def audit_quotas(
    counted: Iterable[Holdings],
    spaces: Iterable[Space],
    exports: Iterable[Export],
    requests: Iterable[Request],
) -> None:
    """Assert that users are counted what their instances have and wait for, and their exports."""
    pages: Counter[Holdings | None] = Counter()
    for space in spaces:
        pages[space.holdings] += len(space.held)
    for export in exports:
        pages[export.holdings] += len(export.resources)
        for importer in export.importers:
            pages[importer.space.holdings] += len(export.resources)
    for request in requests:
        if isinstance(request, Allocation):
            pages[request.space.holdings] += request.count
    for holdings in counted:
        found = pages[holdings]
        assert holdings.pages == found, f"{holdings.user}: {holdings.pages} counted, {found} found"
