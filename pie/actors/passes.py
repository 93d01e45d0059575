"""Physical resources and the passes and commands that refer to them.

What is *pending* has been submitted and is not finished. `after` are those that must have
finished before a step with it begins, `along` those that must have finished or be completed by
the same step (contract K5, Q1): a pass may read in a step what an earlier one writes in it,
because all K and V of a layer are written before its attention.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, TypeAlias, cast

import attrs

from pie.errors import PieError
from pie.ids import InstanceId, Priority, QueueId, ResourceKind
from pie.messages import ForwardPass
from pie.probes import sometimes

Group: TypeAlias = "dict[Pending, None]"
"""A set of pending work in order of entry, the same in every run."""
NOBODY: Group = cast(Group, MappingProxyType({}))
"""The empty group that all share until they have a member: most passes wait for nobody."""
NOTHING: Mapping[int, Any] = MappingProxyType({})


def with_member(group: Group, member: Pending) -> Group:
    """`group` and `member`."""
    if group is NOBODY:
        return {member: None}
    group[member] = None
    return group


@attrs.define(eq=False)
class Resource:
    """One page, embedding or adapter slot; `number` is its place in the pool, once it has one."""

    kind: ResourceKind
    number: int | None
    holders: int = 0
    """Virtual ids and export entries that refer to it: more than one makes it shared (R8)."""
    uses: int = 0
    """How often pending passes and commands refer to it: once per entry of a page list, of copy
    sources, of slots. Who they are is found by looking (`hazards.Users`), which is rare."""
    writers: int = 0
    """How many of these uses write to it. Mostly none: then readers need not look further."""
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
        work.note()

    def arrived(self) -> None:
        """It has a number: let go those who wait for it."""
        for work in self.awaiting:
            work.ungranted -= 1
            work.note()
        self.awaiting.clear()


@attrs.define(eq=False, kw_only=True)
class Pending:
    """Something submitted on its way: what it waits for, who waits for it.

    No `ABC`: asking whether an instance of one is of a kind takes a third of a microsecond.
    """

    continues: ClassVar[bool] = False
    """Whether it may go on after a step that completes it: then nobody shares one with it."""

    sequence: int
    instance: InstanceId
    queue: QueueId
    priority: Priority
    token: Any
    """What the shell needs to answer; opaque here."""
    submitted_at: float
    slots: tuple[Resource, ...] = ()
    """The embedding and adapter slots it uses."""
    ungranted: int = 0
    """Resources it needs that have no number yet: copies and returns that wait for room."""
    after: Group = NOBODY
    along: Group = NOBODY
    data: Group = NOBODY
    """Those of the two whose results it reads: it fails when they fail (F7)."""
    dependents: Group = NOBODY
    running: bool = False
    finished: bool = False
    error: PieError | None = None
    changes: list[Pending] | None = None
    """Where it is noted when it may have become ready, unready or more urgent: the planner's."""

    def note(self) -> None:
        """Something has changed that the planner goes by."""
        if self.changes is not None:
            self.changes.append(self)

    @property
    def ready(self) -> bool:
        """Whether the next step may contain it, given those of `along`."""
        return not self.after and not self.ungranted

    def writes_slot(self, slot: Resource) -> bool:
        """Whether it changes this embedding or adapter slot."""
        raise NotImplementedError

    def places(self) -> Mapping[Resource, Sequence[int]]:
        """What it uses, with the places in its page list (0 for slots)."""
        raise NotImplementedError

    def wait_for(self, other: Pending, *, same_step: bool, data: bool) -> None:
        """Order this behind `other`; raises its priority where needed (Q3)."""
        if same_step and not other.continues:
            self.along = with_member(self.along, other)
        else:
            self.after = with_member(self.after, other)
        if data:
            self.data = with_member(self.data, other)
        other.dependents = with_member(other.dependents, self)
        other.inherit(self.priority)

    def inherit(self, priority: Priority) -> None:
        """What something more urgent waits for becomes as urgent."""
        raised: list[Pending] = [self]
        for work in raised:  # grows: a chain may be long, so no recursion
            if priority > work.priority:
                sometimes("what something urgent waits for becomes urgent")
                work.priority = priority
                work.note()
                raised += [*work.after, *work.along]

    def retire(self) -> None:
        """Nothing waits for this any more."""
        self.finished = True
        for dependent in self.dependents:
            for group in (dependent.after, dependent.along, dependent.data):
                if self in group:
                    del group[self]
            dependent.note()
        self.dependents = NOBODY


@attrs.define(eq=False, kw_only=True)
class PendingCommand(Pending):
    """A command on embedding or adapter slots, run between two steps."""

    writes: bool

    def writes_slot(self, slot: Resource) -> bool:
        return self.writes

    def places(self) -> Mapping[Resource, Sequence[int]]:
        return _by_resource((slot, 0) for slot in self.slots)


@attrs.define(eq=False, kw_only=True)
class PendingPass(Pending):
    """A submitted forward pass: what it touches, what it has done."""

    number: int = 0
    """Number of the pass in its queue, once that is known: see `CommandQueue`."""
    seed: int
    work: ForwardPass
    pages: Sequence[Resource] = ()
    first_written: int = 0
    """Index of the first page that it writes to; it writes to all after it as well."""
    embeddings: Mapping[int, Resource] = attrs.field(default=NOTHING)
    """Pointer -> slot, of the inputs and the stored outputs."""
    adapter: Resource | None = None
    copies: tuple[tuple[Resource, Resource], ...] = ()
    """(source, target) page copies to make before its first step (R8)."""
    inputs: int = attrs.field(init=False)
    remaining: int = attrs.field(init=False)
    """Inputs that have not run yet, of a pass split over steps."""
    results: list[Any] = attrs.field(init=False)
    """By output slot: a sampled token, or (ids, probabilities) of a distribution."""
    _places: Mapping[Resource, Sequence[int]] | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.inputs = self.remaining = len(self.work.inputs)
        self.results = [None] * len(self.work.outputs)

    @property
    def end(self) -> int:
        """KV length after the last slot that it writes."""
        return self.work.length

    @property
    def done(self) -> int:
        """Inputs that have run."""
        return self.inputs - self.remaining

    def writes_slot(self, slot: Resource) -> bool:
        return any(self.embeddings[pointer] is slot for _, pointer in self.work.stored)

    @property
    def repeatable(self) -> bool:
        """Whether it gives the same once more when it has run and its results were lost: not if
        it takes the vector of a slot that it stores to."""
        if not self.work.stored or min(self.work.inputs) >= 0:
            return True
        taken = {self.embeddings[-1 - value] for value in self.work.inputs if value < 0}
        return not any(self.writes_slot(slot) for slot in taken)

    def places(self) -> Mapping[Resource, Sequence[int]]:
        if self._places is None:
            self._places = _by_resource(
                (
                    *zip(self.pages, range(len(self.pages)), strict=True),
                    *((source, self.pages.index(target)) for source, target in self.copies),
                    *((slot, 0) for slot in self.slots),
                )
            )
        return self._places

    def forget_copies(self) -> None:
        """They have been made."""
        self.copies, self._places = (), None

    def spans(self, page: Resource, index: int, page_size: int) -> tuple[int, int, int]:
        """(reads up to, writes from, writes up to) of slots, for an entry of `page.users`.

        The source of a copy is read whole. Its target is written whole, too, but whoever looks
        at the target conflicts with the slots that the pass itself writes there.
        """
        if self.pages[index] is not page:
            return page_size, 0, 0
        visible = min(page_size, self.end - index * page_size)
        first = self.work.length - self.inputs - index * page_size
        return visible, max(0, min(first, visible)), visible


def _by_resource(
    pairs: Iterable[tuple[Resource, int]],
) -> Mapping[Resource, Sequence[int]]:
    places: dict[Resource, list[int]] = {}
    for resource, place in pairs:
        places.setdefault(resource, []).append(place)
    return places
