"""Physical resources, the passes that refer to them, and the order that follows from both.

What is *pending* has been submitted and is not finished. `after` are those that must have
finished before a step with it begins, `along` those that must have finished or be completed by
the same step (contract K5, Q1): a pass may read in a step what an earlier one writes in it,
because all K and V of a layer are written before its attention.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import attrs

from pie.errors import PieError
from pie.ids import InstanceId, Priority, QueueId, ResourceKind
from pie.messages import ForwardPass


@attrs.define(eq=False)
class Resource:
    """One page, embedding or adapter slot; `number` is its place in the pool, once it has one."""

    kind: ResourceKind
    number: int | None
    holders: int = 0
    """Virtual ids and export entries that refer to it: more than one makes it shared (R8)."""
    users: dict[tuple[Pending, int], None] = attrs.field(factory=dict)
    """Pending passes and commands that refer to it, passes with the index in their page list."""
    writers: int = 0
    """How many of them write to it. Mostly none: then whoever reads it need not look at them."""
    place: int | None = None
    """Where it is in host memory, while it is there (R5)."""
    awaiting: list[Pending] = attrs.field(factory=list)
    """Who cannot run before it has a number."""
    spoiled: tuple[int, int, PieError] | None = None
    """[first, end) of slots that a failed pass should have written, and why it did not (F7)."""

    @property
    def private(self) -> bool:
        """Whether one virtual id or export alone refers to it, and it is in the pool."""
        return self.holders == 1 and self.number is not None

    def awaited_by(self, work: Pending) -> None:
        """`work` cannot run before this has a number."""
        self.awaiting.append(work)
        work.ungranted += 1

    def arrived(self) -> None:
        """It has a number: let go those who wait for it."""
        for work in self.awaiting:
            work.ungranted -= 1
        self.awaiting.clear()


@attrs.define(eq=False, kw_only=True)
class Pending(ABC):
    """Something submitted on its way: what it waits for, who waits for it."""

    sequence: int
    instance: InstanceId
    queue: QueueId
    priority: Priority
    token: Any
    """What the shell needs to answer; opaque here."""
    submitted_at: float
    ungranted: int = 0
    """Resources it needs that have no number yet: copies and returns that wait for room."""
    after: set[Pending] = attrs.field(factory=set)
    along: set[Pending] = attrs.field(factory=set)
    data: set[Pending] = attrs.field(factory=set)
    """Those of the two whose results it reads: it fails when they fail (F7)."""
    dependents: list[Pending] = attrs.field(factory=list)
    running: bool = False
    finished: bool = False
    error: PieError | None = None

    @property
    def ready(self) -> bool:
        """Whether the next step may contain it, given those of `along`."""
        return not self.after and not self.ungranted

    @abstractmethod
    def writes_slot(self, slot: Resource) -> bool:
        """Whether it changes this embedding or adapter slot."""

    def wait_for(self, other: Pending, *, same_step: bool, data: bool) -> None:
        """Order this behind `other`; raises its priority where needed (Q3)."""
        (self.along if same_step else self.after).add(other)
        if data:
            self.data.add(other)
        other.dependents.append(self)
        other.inherit(self.priority)

    def inherit(self, priority: Priority) -> None:
        """What something more urgent waits for becomes as urgent."""
        raised: list[Pending] = [self]
        for work in raised:  # grows: a chain may be long, so no recursion
            if priority > work.priority:
                work.priority = priority
                raised += [*work.after, *work.along]

    def retire(self) -> None:
        """Nothing waits for this any more."""
        self.finished = True
        for dependent in self.dependents:
            dependent.after.discard(self)
            dependent.along.discard(self)
            dependent.data.discard(self)
        self.dependents.clear()


@attrs.define(eq=False, kw_only=True)
class PendingCommand(Pending):
    """A command on embedding or adapter slots, run between two steps."""

    slots: tuple[Resource, ...]
    writes: bool

    def writes_slot(self, slot: Resource) -> bool:
        return self.writes


@attrs.define(eq=False, kw_only=True)
class PendingPass(Pending):
    """A submitted forward pass: what it touches, what it has done."""

    number: int
    """Number of the pass in its queue."""
    seed: int
    work: ForwardPass
    pages: list[Resource] = attrs.field(factory=list)
    embeddings: dict[int, Resource] = attrs.field(factory=dict)
    """Pointer -> slot, of the inputs and the stored outputs."""
    adapter: Resource | None = None
    copies: list[tuple[Resource, Resource]] = attrs.field(factory=list)
    """(source, target) page copies to make before its first step (R8)."""
    done: int = 0
    """Inputs already run, of a pass split over steps."""
    tokens: dict[int, int] = attrs.field(factory=dict)
    """Output slot -> sampled token."""
    ranked: dict[int, tuple[list[int], list[float]]] = attrs.field(factory=dict)

    def slots(self) -> list[Resource]:
        """The embedding and adapter slots it uses."""
        own = [] if self.adapter is None else [self.adapter]
        return [*self.embeddings.values(), *own]

    def writes_slot(self, slot: Resource) -> bool:
        return any(self.embeddings[pointer] is slot for _, pointer in self.work.stored)

    @property
    def inputs(self) -> int:
        return len(self.work.inputs)

    @property
    def remaining(self) -> int:
        return len(self.work.inputs) - self.done

    def first_written(self, page_size: int) -> int:
        """Index of the first page that it writes to; it writes to all after it as well."""
        return (self.work.length - self.inputs) // page_size

    def spans(self, page: Resource, index: int, page_size: int) -> tuple[int, int, int]:
        """(reads up to, writes from, writes up to) of slots, for an entry of `page.users`.

        The source of a copy is read whole. Its target is written whole, too, but whoever looks
        at the target conflicts with the slots that the pass itself writes there.
        """
        if self.pages[index] is not page:
            return page_size, 0, 0
        visible = min(page_size, self.work.length - index * page_size)
        first = self.work.length - self.inputs - index * page_size
        return visible, max(0, min(first, visible)), visible


def writers_of(resource: Resource, instance: InstanceId, page_size: int) -> set[Pending]:
    """What `instance` has submitted that will change `resource`."""
    found: set[Pending] = set()
    for work, index in resource.users:
        if work.instance != instance:
            continue
        if resource.kind is ResourceKind.KV_PAGE and isinstance(work, PendingPass):
            _, first, end = work.spans(resource, index, page_size)
            writes = first < end
        else:
            writes = work.writes_slot(resource)
        if writes:
            found.add(work)
    return found


def spoil(failed: PendingPass, error: PieError, page_size: int) -> None:
    """Note that the slots `failed` should have written hold nothing (F7)."""
    copied = [target for _, target in failed.copies]
    for index, page in enumerate(failed.pages):
        _, first, end = failed.spans(page, index, page_size)
        if page in copied:
            first, end = 0, page_size
        if first >= end:
            continue
        if page.spoiled is not None:  # what an earlier failure left is still not written
            before, until, why = page.spoiled
            error_of_first = why if before < first else error
            page.spoiled = min(first, before), max(end, until), error_of_first
        else:
            page.spoiled = first, end, error


def check_spoiled(new: PendingPass, page_size: int) -> PieError | None:
    """Why `new` reads slots that hold nothing, or None; what it writes itself is good again."""
    for source, target in new.copies:
        target.spoiled = source.spoiled
    for index, page in enumerate(new.pages):
        if page.spoiled is None:
            continue
        first, end, error = page.spoiled
        reads, own_first, own_end = new.spans(page, index, page_size)
        if first < min(reads, own_first if own_first < own_end else reads):
            return error
        left = max(first, own_end)
        page.spoiled = (left, end, error) if left < end else None
    return None


def order_by_pages(new: PendingPass, page_size: int) -> None:
    """Make `new` wait for the pending passes whose pages conflict with its own.

    Slots are compared, not pages, so that consecutive passes of one sequence may share a step.
    """
    first_written = new.first_written(page_size)
    for index, page in enumerate(new.pages):
        if page.writers or (page.users and index >= first_written):
            _order_on(new, page, index, page_size)
    for source, target in new.copies:
        if source.writers:
            _order_on(new, source, new.pages.index(target), page_size)


def _order_on(new: PendingPass, page: Resource, index: int, page_size: int) -> None:
    reads, first, end = new.spans(page, index, page_size)
    copied = new.pages[index] is not page
    for other, at in page.users:
        if other is new or not isinstance(other, PendingPass):
            continue
        other_reads, other_first, other_end = other.spans(page, at, page_size)
        overwrites = first < end and first < other_reads
        depends = other_first < min(other_end, reads)
        if overwrites or (depends and copied):
            new.wait_for(other, same_step=False, data=depends)
        elif depends:
            new.wait_for(other, same_step=True, data=True)


def order_by_slots(new: Pending, slots: Iterable[Resource]) -> None:
    """Make `new` wait for the earlier ones that change the slots it uses, or use those it changes.

    Never within a step: slots are read before its rows and written after them (K5).
    """
    for slot in slots:
        for other, _ in slot.users:
            if other is not new and (other.writes_slot(slot) or new.writes_slot(slot)):
                new.wait_for(other, same_step=False, data=other.writes_slot(slot))
