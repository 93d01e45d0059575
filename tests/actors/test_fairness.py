"""Who is next in a step without room for all: the pure order, alone."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections import Counter

import attrs
from hypothesis import given
from hypothesis import strategies as st

from pie.actors.fairness import FairOrder
from pie.ids import InstanceId, Priority


@attrs.frozen(eq=False)
class Claimed:
    """A pass, as far as its order is concerned."""

    sequence: int
    instance: InstanceId
    priority: Priority = Priority.NORMAL
    submitted_at: float = 0.0
    rows: int = 1


Users = dict[int, str]


def an_order(users: Users, ageing_seconds: float = 2.0) -> FairOrder[Claimed]:
    return FairOrder(lambda instance: users.get(instance, f"user of {instance}"), ageing_seconds)


def serve(order: FairOrder[Claimed], budget: int, now: float = 0.0) -> list[Claimed]:
    """One step: as many as fit; the rest is offered again."""
    taken: list[Claimed] = []
    left: list[Claimed] = []
    for work in order.picks(now):
        if work.rows <= budget:
            budget -= work.rows
            taken.append(work)
            order.charge(work, work.rows, complete=True)
        else:
            left.append(work)
        if budget == 0:
            break
    order.offer(left, now)
    return taken


def passes(instance: int, count: int, start: int = 0, **more: object) -> list[Claimed]:
    return [Claimed(start + i, InstanceId(instance), **more) for i in range(count)]  # type: ignore[arg-type]


def test_a_user_with_one_instance_gets_as_much_as_one_with_63() -> None:
    """The first has always passes ready, the others one each; a step holds 16 of 127."""
    users: Users = {0: "one"} | dict.fromkeys(range(1, 64), "many")
    order, rows, sequence = an_order(users), Counter[str](), 64
    order.offer([Claimed(i, InstanceId(i)) for i in range(64)], 0.0)
    order.offer(passes(0, 63, 100), 0.0)
    for _ in range(100):
        for work in serve(order, 16):
            rows[users[work.instance]] += 1
            sequence += 1
            order.offer([Claimed(1000 + sequence, work.instance)], 0.0)

    assert rows == {"one": 800, "many": 800}


def test_an_instance_with_200_passes_does_not_push_out_one_with_a_single_pass() -> None:
    order = an_order({0: "a", 1: "a"})
    order.offer(passes(0, 200), 0.0)
    order.offer(passes(1, 1, start=1000), 0.0)

    assert {work.instance for work in serve(order, 2)} == {0, 1}


def test_whoever_comes_back_has_saved_nothing_up() -> None:
    """After 100 rows of the first, the second gets half from now on, not the next hundred."""
    order = an_order({0: "a", 1: "b"})
    order.offer(passes(0, 300), 0.0)
    for _ in range(10):
        serve(order, 10)
    order.offer(passes(1, 100, start=1000), 0.0)

    assert Counter(work.instance for work in serve(order, 20)) == {0: 10, 1: 10}


def test_times_of_plenty_are_forgotten() -> None:
    order = an_order({0: "a", 1: "b"})
    order.offer(passes(0, 300), 0.0)
    order.offer(passes(1, 1, start=300), 0.0)
    serve(order, 250)
    order.clear()
    order.offer([*passes(0, 50), *passes(1, 50, start=50)], 0.0)

    assert Counter(work.instance for work in serve(order, 20)) == {0: 10, 1: 10}


def test_higher_priorities_go_first_whoever_they_are_of() -> None:
    order = an_order({})
    low = passes(0, 1, priority=Priority.LOW)
    high = passes(1, 3, start=5, priority=Priority.HIGH)
    normal = passes(2, 1, start=9)
    order.offer([*low, *high, *normal], 0.0)

    assert serve(order, 5) == [*high, *normal, *low]


def test_waiting_lifts_a_pass_by_a_level_per_period() -> None:
    """Then it is as urgent as the new ones, and its user has had less."""
    order = an_order({}, ageing_seconds=1.0)
    low = Claimed(0, InstanceId(0), Priority.LOW)
    order.offer([low], 0.0)
    order.offer(passes(1, 100, start=1, priority=Priority.HIGH), 0.0)
    early = [work for i in range(19) for work in serve(order, 1, now=0.1 * i)]
    late = [work for i in range(2) for work in serve(order, 1, now=2.0 + 0.1 * i)]

    assert low not in early
    assert low in late


def test_a_pass_that_became_more_urgent_moves_up() -> None:
    """Priority is inherited (contract Q3), and told by offering the pass again."""

    @attrs.define(eq=False)
    class Raised:
        sequence: int
        instance: InstanceId
        priority: Priority
        submitted_at: float = 0.0

    order: FairOrder[Raised] = FairOrder(lambda _: "u", 2.0)
    low = Raised(0, InstanceId(0), Priority.LOW)
    normal = Raised(1, InstanceId(1), Priority.NORMAL)
    order.offer([low, normal], 0.0)
    low.priority = Priority.HIGH
    order.offer([low], 0.0)

    assert list(order.picks(0.0)) == [low, normal]


def test_a_long_pass_is_finished_before_the_next_of_its_user_begins() -> None:
    """And another user's takes turns with it."""
    order = an_order({0: "a", 1: "a", 2: "b"})
    works = [Claimed(i, InstanceId(i), rows=1000) for i in range(3)]
    order.offer(works, 0.0)
    begun = []
    for _ in range(4):
        work = next(order.picks(0.0))
        order.charge(work, 250, complete=False)
        order.offer([work], 0.0)
        begun.append(work.instance)

    assert begun == [0, 2, 0, 2]


def test_nothing_is_kept_of_what_is_over() -> None:
    """A pass refers to its guest: nobody may hold on to it."""
    order = an_order({})
    works = [*passes(0, 5), *passes(1, 5, start=5, priority=Priority.LOW)]
    order.offer(works, 0.0)
    serve(order, 3)
    for work in works:
        order.discard(work)
    alive = [weakref.ref(work) for work in works]
    del works, work
    gc.collect()

    assert not [left for left in alive if left() is not None]


claims = st.builds(
    Claimed,
    sequence=st.just(0),
    instance=st.integers(0, 12).map(InstanceId),
    priority=st.sampled_from(Priority),
    submitted_at=st.floats(0, 10),
    rows=st.integers(1, 30),
)


@given(st.lists(st.lists(claims, max_size=20), max_size=12), st.integers(1, 60))
def test_everything_offered_is_picked_once(arrivals: list[list[Claimed]], budget: int) -> None:
    """Whatever arrives between the steps, whatever is too long for one of them."""
    order = an_order({instance: f"user {instance % 4}" for instance in range(13)}, 3.0)
    done: list[Claimed] = []
    number = itertools.count()
    arrivals = [[attrs.evolve(work, sequence=next(number)) for work in at] for at in arrivals]
    for time, works in enumerate(arrivals):
        order.offer(works, 10.0 + time)
        done += serve(order, budget, 10.0 + time)
    done += list(order.picks(1000.0))

    assert sorted(map(id, done)) == sorted(id(work) for works in arrivals for work in works)


@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=8),
    st.integers(1, 40),
    st.lists(st.integers(1, 20), min_size=1, max_size=9),
)
def test_users_who_always_want_more_get_the_same_to_within_a_pass(
    instances: list[int], budget: int, sizes: list[int]
) -> None:
    """Whatever number of instances they have, and however long their passes are."""
    owners = [user for user, count in enumerate(instances) for _ in range(count)]
    users = {instance: str(user) for instance, user in enumerate(owners)}
    order, rows, sequence = an_order(users), Counter[str](), 0
    for _ in range(3 * budget):
        for instance in range(len(owners)):
            sequence += 1
            size = sizes[sequence % len(sizes)]
            order.offer([Claimed(sequence, InstanceId(instance), rows=size)], 0.0)
    for _ in range(60):
        left = budget
        for work in order.picks(0.0):
            order.charge(work, work.rows, complete=True)
            rows[users[work.instance]] += work.rows
            left -= work.rows
            if left <= 0:
                break
        if sum(rows.values()) > budget * len(owners) / len(instances):
            break

    served = [rows[str(user)] for user in range(len(instances))]
    assert max(served) - min(served) <= 2 * max(sizes)


def test_an_endless_shortage_does_not_pile_up_what_is_remembered() -> None:
    """A thousand short-lived instances of one user, one after the other."""
    order = an_order(dict.fromkeys(range(2000), "u"))
    order.offer(passes(0, 10_000), 0.0)
    for instance in range(1, 1000):
        order.offer([Claimed(20_000 + instance, InstanceId(instance))], 0.0)
        serve(order, 2)

    (user,) = order._users.values()
    assert len(user.instances) < 200
