"""Physical resources, the passes that refer to them, and the order that follows from both.

A *pending* pass has been submitted and is not finished. `after` are the passes that must have
finished before a step with it begins, `along` those that must have finished or be completed by
the same step (contract K5, Q1): a pass may read in a step what an earlier one writes in it,
because all K and V of a layer are written before its attention.
"""

from __future__ import annotations

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
    users: dict[tuple[PendingPass, int], None] = attrs.field(factory=dict)
    """Pending passes that refer to it, each with the index in its page list."""
    writers: int = 0
    """How many of them write to it. Mostly none: then whoever reads it need not look at them."""
    awaiting: list[PendingPass] = attrs.field(factory=list)
    """Pending passes that cannot run before it has a number."""
    spoiled: tuple[int, int, PieError] | None = None
    """[first, end) of slots that a failed pass should have written, and why it did not (F7)."""


@attrs.define(eq=False)
class PendingPass:
    """A submitted pass on its way: what it waits for, what it has done."""

    sequence: int
    instance: InstanceId
    queue: QueueId
    number: int
    """Number of the pass in its queue."""
    seed: int
    priority: Priority
    work: ForwardPass
    token: Any
    """What the shell needs to answer; opaque here."""
    submitted_at: float
    pages: list[Resource] = attrs.field(factory=list)
    embeddings: dict[int, Resource] = attrs.field(factory=dict)
    """Pointer -> slot, of the inputs and the stored outputs."""
    copies: list[tuple[Resource, Resource]] = attrs.field(factory=list)
    """(source, target) page copies to make before its first step (R8)."""
    ungranted: int = 0
    """Pages of its list that have no number yet: copies that wait for room."""
    after: set[PendingPass] = attrs.field(factory=set)
    along: set[PendingPass] = attrs.field(factory=set)
    data: set[PendingPass] = attrs.field(factory=set)
    """Those of the two whose results it reads: it fails when they fail (F7)."""
    dependents: list[PendingPass] = attrs.field(factory=list)
    done: int = 0
    """Inputs already run, of a pass split over steps."""
    running: bool = False
    finished: bool = False
    tokens: dict[int, int] = attrs.field(factory=dict)
    """Output slot -> sampled token."""
    ranked: dict[int, tuple[list[int], list[float]]] = attrs.field(factory=dict)
    error: PieError | None = None

    @property
    def inputs(self) -> int:
        return len(self.work.inputs)

    @property
    def remaining(self) -> int:
        return len(self.work.inputs) - self.done

    @property
    def ready(self) -> bool:
        """Whether the next step may contain it, given those of `along`."""
        return not self.after and not self.ungranted

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

    def wait_for(self, other: PendingPass, *, same_step: bool, data: bool) -> None:
        """Order this pass behind `other`; raises its priority where needed (Q3)."""
        (self.along if same_step else self.after).add(other)
        if data:
            self.data.add(other)
        other.dependents.append(self)
        other.inherit(self.priority)

    def inherit(self, priority: Priority) -> None:
        """A pass that a more urgent one waits for becomes as urgent."""
        if priority > self.priority:
            self.priority = priority
            for other in (*self.after, *self.along):
                other.inherit(priority)

    def retire(self) -> None:
        """Nothing waits for this pass any more."""
        self.finished = True
        for dependent in self.dependents:
            dependent.after.discard(self)
            dependent.along.discard(self)
            dependent.data.discard(self)
        self.dependents.clear()


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
        if other is new:
            continue
        other_reads, other_first, other_end = other.spans(page, at, page_size)
        overwrites = first < end and first < other_reads
        depends = other_first < min(other_end, reads)
        if overwrites or (depends and copied):
            new.wait_for(other, same_step=False, data=depends)
        elif depends:
            new.wait_for(other, same_step=True, data=True)


def order_by_embeddings(new: PendingPass) -> None:
    """Make `new` wait for the earlier passes that fill or take the embedding slots it uses."""
    stored = {pointer for _, pointer in new.work.stored}
    for pointer, slot in new.embeddings.items():
        for other, _ in slot.users:
            if other is new:
                continue
            fills = any(other.embeddings[p] is slot for _, p in other.work.stored)
            if fills or pointer in stored:
                new.wait_for(other, same_step=False, data=fills)
