"""A state machine that does to a page table what a scheduler, guests and an executor do."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from pie.actors.moves import Moves
from pie.actors.pages import PageTable
from pie.actors.passes import PendingPass, Resource
from pie.actors.pools import Answer
from pie.errors import (
    Closed,
    GuestError,
    LimitExceeded,
    OutOfResources,
    PageLost,
    PassFailed,
)
from pie.ids import InstanceId, Pointer, Priority, QueueId, ResourceKind

from .page_checks import check_lines, check_names, check_users, plain_of
from .page_model import PAGE, SIZE, Key, PlainExport, PlainPage, PlainTable, Question, value
from .scheduling import a_pass

SLOT = ResourceKind.EMBEDDING
KINDS = st.sampled_from([PAGE, PAGE, PAGE, SLOT])
NAMES = st.sampled_from("ab")
INSTANCES = 4


class PageTableMachine(RuleBasedStateMachine):
    """Every step is done to the table and to its plain model; `memory` stands for a device."""

    @initialize(
        pages=st.integers(2, 8), host_pages=st.integers(0, 8), quota=st.none() | st.integers(8, 16)
    )
    def start(self, pages: int, host_pages: int, quota: int | None) -> None:
        self.table = PageTable(SIZE, pages, 2, host_pages=host_pages, max_pages_per_user=quota)
        self.quota = math.inf if quota is None else quota
        self.moves = Moves(self.table)
        self.plain = PlainTable()
        self.pending: dict[int, PendingPass] = {}
        self.running: list[PendingPass] = []
        self.questions: dict[int, Question] = {}
        self.memory = [[0] * SIZE for _ in range(pages)]
        self.host: dict[int, list[int]] = {}
        self.launched = 0
        self.numbered = 0
        for user in "uu":
            self.ask_for(self.open(user), PAGE, pages // 2)

    # Instances

    def number(self) -> int:
        self.numbered += 1
        return self.numbered

    def open(self, user: str) -> InstanceId:
        instance = InstanceId(self.launched)
        self.launched += 1
        self.table.open(instance, user)
        self.plain.open(instance, user)
        return instance

    @precondition(lambda self: len(self.plain.users) < INSTANCES)
    @rule(user=st.sampled_from("uuv"))
    def launch(self, user: str) -> None:
        self.open(user)

    def any_instance(self, data: st.DataObject) -> InstanceId:
        return data.draw(st.sampled_from(sorted(self.plain.users)), label="instance")

    @precondition(lambda self: len(self.plain.users) > 2)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """A kill: what runs goes on, all else of the instance is dropped (R10)."""
        self.close(self.any_instance(data))

    def close(self, instance: InstanceId) -> None:
        for work in reversed([w for w in self.pending.values() if w.instance == instance]):
            work.error = Closed("it was killed")
            if work not in self.running:
                self.finish(work)
        self.read_answers()
        self.plain.close(instance)
        self.table.close(instance)
        self.read_answers()
        assert all(question.instance != instance for question in self.questions.values())

    # What guests call

    @rule(data=st.data(), kind=KINDS, count=st.integers(1, 4))
    def allocate(self, data: st.DataObject, kind: ResourceKind, count: int) -> None:
        self.ask_for(self.any_instance(data), kind, count)

    @rule(data=st.data(), kind=KINDS, count=st.integers(0, 4))
    def take_spare(self, data: st.DataObject, kind: ResourceKind, count: int) -> None:
        """Contract X10: nothing that somebody waits for or comes back, and never too much."""
        instance = self.any_instance(data)
        pool, room = self.table.pools[kind], self.table.room
        free, quota = len(pool.free), self.left_of_quota(instance, kind)
        room_for = pool.capacity - self.table.holds(instance, kind)
        given = self.table.take_spare(instance, kind, count)
        expected = [self.plain.add(instance, kind, PlainPage()) for _ in given]
        assert list(given) == expected
        left = len(pool.free)
        assert left == free - len(given)
        if room.first(kind) is not None or room.returned:
            assert not given
        elif given:
            assert 4 * len(given) <= free
            assert left >= pool.capacity // 4
            assert 4 * len(given) <= quota
            assert len(given) <= room_for
        else:
            assert not count or free < 4 or quota < 5 or room_for <= 0
        assert not self.table.answers()

    def left_of_quota(self, instance: InstanceId, kind: ResourceKind) -> float:
        """How many more pages the instance's user may ask for."""
        if kind is not PAGE or math.isinf(self.quota):
            return math.inf
        user = self.plain.users[instance]
        return self.quota - self.plain.counted(user) - self.asked(user)

    def ask_for(self, instance: InstanceId, kind: ResourceKind, count: int) -> None:
        token = self.number()
        held = len(self.plain.spaces[instance, kind])
        if held + count > self.table.pools[kind].capacity:
            with pytest.raises(OutOfResources):
                self.table.allocate(instance, kind, count, token)
            return
        if self.beyond_quota(instance, kind, count):
            with pytest.raises(LimitExceeded, match="max_pages_per_user"):
                self.table.allocate(instance, kind, count, token)
            return
        self.questions[token] = Question(instance, kind, count)
        self.table.allocate(instance, kind, count, token)
        self.read_answers()

    def beyond_quota(self, instance: InstanceId, kind: ResourceKind, count: int) -> bool:
        """Whether a user would have more pages than it may, with those it waits for."""
        return count > self.left_of_quota(instance, kind)

    def asked(self, user: str) -> int:
        """How many pages the instances of a user wait for."""
        return sum(
            question.count
            for question in self.questions.values()
            if question.kind is PAGE and self.plain.users[question.instance] == user
        )

    def holders(self, kind: ResourceKind) -> list[InstanceId]:
        return [instance for instance in self.plain.users if self.plain.spaces[instance, kind]]

    def some_pointers(
        self, data: st.DataObject, kind: ResourceKind, most: int
    ) -> tuple[InstanceId, list[Pointer]]:
        instance = data.draw(st.sampled_from(self.holders(kind)), label="instance")
        held = st.sampled_from(sorted(self.plain.spaces[instance, kind]))
        few = st.lists(held, min_size=1, max_size=most, unique=True)
        return instance, data.draw(few, label="pointers")

    @precondition(lambda self: self.holders(PAGE) or self.holders(SLOT))
    @rule(data=st.data(), kind=KINDS)
    def free(self, data: st.DataObject, kind: ResourceKind) -> None:
        kind = self.held_kind(kind)
        instance, pointers = self.some_pointers(data, kind, 4)
        self.plain.free(instance, kind, pointers)
        self.table.free(instance, kind, pointers)
        self.read_answers()

    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        """What a guest that has returned does; its passes go on (R10)."""
        instance = self.any_instance(data)
        for kind in ResourceKind:
            self.plain.spaces[instance, kind].clear()
        self.table.drop_handles(instance)
        self.read_answers()

    def held_kind(self, kind: ResourceKind) -> ResourceKind:
        return kind if self.holders(kind) else PAGE if kind is SLOT else SLOT

    @precondition(lambda self: self.holders(PAGE))
    @rule(data=st.data())
    def share(self, data: st.DataObject) -> None:
        """Handles beside those that it has, whatever is pending."""
        instance, pointers = self.some_pointers(data, PAGE, 2)
        if self.beyond_quota(instance, PAGE, len(pointers)):
            with pytest.raises(LimitExceeded, match="share-pages: user"):
                self.table.share(instance, pointers)
            return
        pages = [self.plain.spaces[instance, PAGE][pointer] for pointer in pointers]
        given = tuple(self.plain.add(instance, PAGE, page) for page in pages)
        assert self.table.share(instance, pointers) == given

    @precondition(lambda self: self.holders(PAGE) or self.holders(SLOT))
    @rule(data=st.data(), kind=KINDS, name=NAMES)
    def export(self, data: st.DataObject, kind: ResourceKind, name: str) -> None:
        kind = self.held_kind(kind)
        instance, pointers = self.some_pointers(data, kind, 2)
        key = self.plain.users[instance], kind, name
        if key in self.plain.exports:
            with pytest.raises(GuestError, match="exists already"):
                self.table.export(instance, kind, pointers, name)
            return
        if self.beyond_quota(instance, kind, len(pointers)):
            with pytest.raises(LimitExceeded, match="export-resources: user"):
                self.table.export(instance, kind, pointers, name)
            return
        self.plain.export(instance, key, pointers)
        self.table.export(instance, kind, pointers, name)

    @rule(data=st.data(), kind=KINDS, name=NAMES)
    def import_nothing(self, data: st.DataObject, kind: ResourceKind, name: str) -> None:
        instance = self.any_instance(data)
        if (self.plain.users[instance], kind, name) not in self.plain.exports:
            with pytest.raises(GuestError, match="nothing is exported"):
                self.table.import_(instance, kind, name, 0)

    def an_entry(self, data: st.DataObject) -> tuple[InstanceId, Key]:
        """One of an export, and an instance that may know it."""
        users = self.plain.users
        known = [(i, key) for i in users for key in self.plain.exports if key[0] == users[i]]
        return data.draw(st.sampled_from(known), label="entry")

    def exports_of_somebody(self) -> bool:
        return bool({key[0] for key in self.plain.exports} & set(self.plain.users.values()))

    @precondition(exports_of_somebody)
    @rule(data=st.data())
    def import_(self, data: st.DataObject) -> None:
        instance, key = self.an_entry(data)
        token = self.number()
        if self.beyond_quota(instance, key[1], len(self.plain.exports[key].pages)):
            with pytest.raises(LimitExceeded, match="import-resources: user"):
                self.table.import_(instance, key[1], key[2], token)
            return
        self.questions[token] = Question(instance, key[1], self.plain.exports[key])
        self.table.import_(instance, key[1], key[2], token)
        self.read_answers()

    @precondition(exports_of_somebody)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        instance, key = self.an_entry(data)
        del self.plain.exports[key]
        self.table.release(instance, key[1], key[2])
        self.read_answers()

    @precondition(lambda self: self.holders(PAGE))
    @rule(data=st.data(), last=st.integers(1, SIZE), again=st.booleans())
    def submit(self, data: st.DataObject, last: int, again: bool) -> None:
        self.submit_on(*self.some_pointers(data, PAGE, 3), data, last, again=again)

    def away(self) -> list[tuple[InstanceId, Pointer]]:
        """Handles of pages that are in host memory."""
        return [
            (instance, pointer)
            for instance in self.plain.users
            for pointer, page in self.table._spaces[instance, PAGE].held.items()
            if page.place is not None
        ]

    @precondition(lambda self: self.away())
    @rule(data=st.data(), last=st.integers(1, SIZE))
    def submit_on_what_is_away(self, data: st.DataObject, last: int) -> None:
        instance, pointer = data.draw(st.sampled_from(self.away()), label="away")
        self.submit_on(instance, [pointer], data, last)

    def submit_on(
        self,
        instance: InstanceId,
        pages: list[Pointer],
        data: st.DataObject,
        last: int,
        *,
        again: bool = False,
    ) -> None:
        length = (len(pages) - 1) * SIZE + last
        n = data.draw(st.integers(1, length), label="inputs")
        if again and length - n >= SIZE:
            pages = [pages[0], *pages]  # read twice
            length += SIZE
        sequence = self.number()
        work = PendingPass(
            sequence=sequence,
            instance=instance,
            queue=QueueId(0),
            priority=Priority.NORMAL,
            token=None,
            submitted_at=0.0,
            number=0,
            seed=0,
            work=a_pass([0] * n, pages, length, outputs=()),
        )
        self.plain.submit(sequence, instance, pages, length, n)
        self.pending[sequence] = work
        lost = self.table.binding.submit(work)
        assert (lost is not None) is self.plain.reads_what_is_lost(sequence)
        if lost is not None:
            work.error = lost
            self.finish(work)
        self.read_answers()

    # What an executor does

    def may_start(self) -> list[PendingPass]:
        """What the next step may contain, if it contains what comes before, too."""
        chosen: list[PendingPass] = []
        for work in self.pending.values():
            if work.ready and all(other in chosen for other in work.along):
                chosen.append(work)
        return chosen

    @precondition(lambda self: not self.running and self.may_start())
    @rule(data=st.data())
    def begin_step(self, data: st.DataObject) -> None:
        left = data.draw(st.sets(st.sampled_from(sorted(self.pending)), max_size=3), label="left")
        chosen: list[PendingPass] = []
        for work in self.may_start():
            if work.sequence not in left and all(other in chosen for other in work.along):
                chosen.append(work)
        self.begin(chosen)

    def begin(self, step: list[PendingPass]) -> None:
        """Clear, copy, write, read: as all models do with a batch."""
        self.write_back()
        for number in self.table.pools[PAGE].take_stale():
            self.memory[number] = [0] * SIZE
        copies = [(at(s), at(t)) for work in step for s, t in work.copies]
        contents = [list(self.memory[source]) for source, _ in copies]
        for (_, target), content in zip(copies, contents, strict=True):
            self.memory[target] = content
        for work in step:
            for slot in range(work.work.length - work.inputs, work.work.length):
                written = self.memory[at(work.pages[slot // SIZE])]
                written[slot % SIZE] = value(work.sequence, slot)
        for work in step:
            for page, cells in zip(work.pages, self.plain.passes[work.sequence].reads, strict=True):
                content = self.memory[at(page)]
                for slot, wanted in self.plain.known(cells):
                    assert content[slot] == wanted, (work.sequence, slot)
        self.running = step

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end_step(self, data: st.DataObject) -> None:
        numbers = st.sampled_from([work.sequence for work in self.running])
        self.end_running(data.draw(st.sets(numbers, max_size=1), label="failed"))

    def end_running(self, failed: Collection[int] = ()) -> None:
        for work in list(self.running):
            self.running.remove(work)
            if work.sequence in failed:
                work.error = work.error or PassFailed("on purpose")
            self.finish(work)
        self.read_answers()

    @precondition(lambda self: len(self.pending) > len(self.running))
    @rule(data=st.data())
    def fail_early(self, data: st.DataObject) -> None:
        """Passes that would read what is lost fail before they start (F7)."""
        running = {work.sequence for work in self.running}
        waiting = sorted(self.pending.keys() - running)
        work = self.pending[data.draw(st.sampled_from(waiting), label="pass")]
        work.error = PassFailed("on purpose")
        self.finish(work)
        self.read_answers()

    def finish(self, work: PendingPass) -> None:
        needing = [later for later in work.dependents if work in later.data]
        work.retire()
        del self.pending[work.sequence]
        self.plain.finish(work.sequence, failed=work.error is not None)
        self.table.binding.finish(work)
        for later in needing if work.error is not None else []:
            if later.error is None and isinstance(later, PendingPass):
                later.error = PassFailed("what it reads is lost")
                if later not in self.running:
                    self.finish(later)

    @precondition(lambda self: not self.running and self.moves.due())
    @rule(data=st.data())
    def move(self, data: st.DataObject) -> None:
        """Make room for the first in line, as far as that goes (R5)."""
        self.make_room(data.draw(st.permutations(self.idle()), label="idle"))

    def make_room(self, idle: Sequence[InstanceId]) -> None:
        self.write_back()
        moved = 0
        while chosen := self.moves.choose(idle):
            _, pages = chosen
            moved += len(pages)
            assert moved <= 100, "moves go on for ever"
            free = len(self.table.pools[PAGE].free)
            for page in pages:
                number = at(page)
                stale = number in self.table.pools[PAGE].stale
                place = self.moves.moved_out(page, number)
                assert place is not None, "no step runs and no message came between"
                self.host[place] = [0] * SIZE if stale else list(self.memory[number])
            assert len(self.table.pools[PAGE].free) == free + len(pages)
            self.table.room.serve()
            self.write_back()
        self.read_answers()

    @precondition(lambda self: not self.running and self.table.room.returned)
    @rule()
    def lose(self) -> None:
        """What comes back from host memory does not arrive."""
        plain = plain_of(self.table, self.plain)
        returned = self.moves.take_returned()
        for one in returned.values():
            del self.host[one.place]
            if one.page.number == one.number and one.page in plain:
                self.plain.lose(plain[one.page])
        losses = self.moves.lose(returned.values(), PageLost("on purpose"))
        for key in losses.gone:
            del self.plain.exports[key]
        for work in losses.failed:
            assert isinstance(work, PendingPass)
            if not work.finished:
                self.finish(work)
        self.read_answers()

    def write_back(self) -> None:
        for number, returned in self.moves.take_returned().items():
            self.memory[number] = self.host.pop(returned.place)

    def stuck(self) -> bool:
        return self.table.room.first(PAGE) is not None

    def idle(self) -> list[InstanceId]:
        busy = {work.instance for work in self.pending.values()} | self.table.room.askers()
        return [instance for instance in self.plain.users if instance not in busy]

    @precondition(lambda self: not self.running and self.stuck() and not self.may_start())
    @rule()
    def give_up(self) -> None:
        """Nothing runs and nothing can move out: the first in line is ended (R5)."""
        self.make_room(self.idle())
        if self.stuck() and not self.may_start():
            request, error = self.moves.refusal()
            for work in self.moves.refuse(request, error):
                assert isinstance(work, PendingPass)
                self.finish(work)
            self.read_answers()
            if request.instance in self.plain.users:
                self.close(request.instance)
                self.open("u")  # the rules count on two

    # What must be true

    def read_answers(self) -> None:
        for answer in self.table.answers():
            assert answer.token in self.questions, "answered twice"
            self.read_answer(answer, self.questions.pop(answer.token))

    def read_answer(self, answer: Answer, question: Question) -> None:
        wanted = question.wanted
        gone = isinstance(wanted, PlainExport) and wanted not in self.plain.exports.values()
        if answer.error is not None:
            # Whoever dies while its own export goes with it may hear either.
            expected = GuestError | Closed if gone else Closed | OutOfResources
            assert isinstance(answer.error, expected)
            return
        assert not gone
        if isinstance(wanted, PlainExport):
            assert not wanted.unwritten
            pages = wanted.pages
        else:
            pages = [PlainPage() for _ in range(wanted)]
        pointers = [self.plain.add(question.instance, question.kind, page) for page in pages]
        assert answer.value == tuple(pointers)

    @invariant()
    def it_is_what_the_plain_table_is(self) -> None:
        check_names(self.table, self.plain)
        self.table.check(self.pending.values())
        check_users(self.table, self.pending.values())
        check_lines(self.table, self.plain)

    def teardown(self) -> None:
        """Everything comes to an end, and then everything is free."""
        if not hasattr(self, "table"):
            return
        self.end_running()
        self.run_to_the_end()
        for instance in list(self.plain.users):
            self.close(instance)
        for user in "uv":
            last = self.open(user)
            for kind in ResourceKind:
                for name, _ in self.table.exports(last, kind):
                    self.table.release(last, kind, name)
            self.table.close(last)
        self.write_back()
        assert not self.questions
        assert self.table.waiting() == 0
        assert all(len(pool.free) == pool.capacity for pool in self.table.pools.values())
        assert len(self.table.room.host.free) == self.table.room.host.capacity

    def run_to_the_end(self) -> None:
        """Step, move, and give up on who cannot go on, until nobody waits for a pass or page."""
        while self.pending or self.stuck():
            before = len(self.pending), self.table.waiting()
            self.make_room(self.idle())
            if step := self.may_start():
                self.begin(step)
                self.end_running()
            elif self.stuck():
                self.give_up()
            assert (len(self.pending), self.table.waiting()) < before, "nothing can go on"


def at(page: Resource) -> int:
    assert page.number is not None, "a page in a step has a place"
    return page.number
