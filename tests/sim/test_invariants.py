"""Each thing that a simulation checks is found to be broken when it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio

from pie.actors.batching import Scheduler
from pie.actors.broker import Line
from pie.actors.ledger import Ledger
from pie.actors.planner import BatchPlanner
from pie.actors.pools import Pool, Space
from pie.actors.queue import CommandQueue
from pie.actors.room import Room
from pie.actors.supervisor import Supervisor
from pie.guest.instance import Instance
from pie.mailbox import Reply
from pie.messages import Event, SubmitPass
from pie.outbox import Outbox
from pie.testing.sim import Scenario, SimulationFailed, load_scenario, parse_scenario, sweep

Break = Callable[[pytest.MonkeyPatch], None]

QUEUES = parse_scenario(
    "pages = 48\npage_size = 8\nstep_tokens = 4\n[programs]\nqueues = 1", "queues"
)
"""Passes that are longer than a step, before others in their queues."""
CROWD = parse_scenario(
    "guests = 16\npages = 200\nageing_seconds = 0.01\nstep_seconds = 0.01\n[programs]\ndecode = 1",
    "crowd",
)
"""So many that the first would have to wait for long if it were not served."""


def _first_failure(scenario: Scenario | str) -> SimulationFailed:
    scenario = load_scenario(scenario) if isinstance(scenario, str) else scenario
    failures = sweep(scenario, range(60)).failures
    assert failures, "no seed found it"
    return failures[0]


def _numbers_are_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Room, "reclaim", lambda *_: None)


def _a_number_is_given_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Pool, "take", lambda self: self.free[0])


def _holders_are_miscounted(patch: pytest.MonkeyPatch) -> None:
    add = Space.add

    def twice(self: Space, resource: Any) -> Any:
        resource.holders += 1
        return add(self, resource)

    patch.setattr(Space, "add", twice)


def _queues_are_overtaken(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CommandQueue, "last", lambda _: None)


def _a_barrier_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CommandQueue, "barriers", lambda _: [])


def _the_youngest_go_first(patch: pytest.MonkeyPatch) -> None:
    step = BatchPlanner.next_step

    def one_of_the_youngest(self: BatchPlanner, *arguments: Any) -> Sequence[Any]:
        chunks = step(self, *arguments)
        youngest = max((chunk.work.instance for chunk in chunks), default=None)
        return [chunk for chunk in chunks if chunk.work.instance == youngest]

    patch.setattr(BatchPlanner, "next_step", one_of_the_youngest)


def _a_task_is_left(patch: pytest.MonkeyPatch) -> None:
    launch = Supervisor._launch

    def with_a_task(self: Supervisor, message: Any, instances: trio.Nursery) -> None:
        launch(self, message, instances)
        instances.start_soon(trio.sleep_forever)

    patch.setattr(Supervisor, "_launch", with_a_task)


def _an_end_is_not_told(patch: pytest.MonkeyPatch) -> None:
    def silently(self: Outbox[Any], last: Any) -> None:
        self._closed = True
        self._filled.set()

    patch.setattr(Outbox, "finish", silently)


def _an_end_is_told_twice(patch: pytest.MonkeyPatch) -> None:
    finish = Outbox.finish

    def twice(self: Outbox[Any], last: Event) -> None:
        self._add(last)
        finish(self, last)

    patch.setattr(Outbox, "finish", twice)


def _instances_are_kept(patch: pytest.MonkeyPatch) -> None:
    made, kept = Instance.__attrs_post_init__, list[Instance]()

    def remembered(self: Instance) -> None:
        made(self)
        kept.append(self)

    patch.setattr(Instance, "__attrs_post_init__", remembered)


def _pages_are_not_cleared(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Pool, "take_stale", lambda _: [])


def _a_reply_is_lost(patch: pytest.MonkeyPatch) -> None:
    finish = Ledger._finish_one

    def unanswered(self: Ledger, work: Any, answer: Any) -> None:
        if isinstance(work.token, SubmitPass) and not work.token.reply._waiters:
            work.token = type("Nobody", (), {"reply": Reply()})
        finish(self, work, answer)

    patch.setattr(Ledger, "_finish_one", unanswered)


def _a_loop_spins(patch: pytest.MonkeyPatch) -> None:
    async def spin(self: Scheduler) -> None:
        while True:
            await trio.lowlevel.checkpoint()

    patch.setattr(Scheduler, "_gather", spin)


def _messages_are_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Line, "put", lambda *_: True)


@pytest.mark.parametrize(
    ("broken", "scenario", "reason"),
    [
        (_numbers_are_lost, "mixed", "numbers of kind KV_PAGE are lost"),
        (_a_number_is_given_twice, "mixed", "is owned twice"),
        (_holders_are_miscounted, "mixed", "holders counted"),
        (_queues_are_overtaken, QUEUES, "of its queue"),
        (_a_barrier_is_forgotten, "endings", "never answered: Synchronize"),
        (_the_youngest_go_first, CROWD, "was in no step for"),
        (_a_task_is_left, "mixed", "tasks are left: trio.sleep_forever"),
        (_an_end_is_not_told, "mixed", "had 0 terminal events"),
        (_an_end_is_told_twice, "mixed", "said something after its end"),
        (_instances_are_kept, "mixed", "somebody still holds the instances of guests"),
        (_pages_are_not_cleared, "memory", "in the crowd and"),
        (_a_reply_is_lost, "mixed", "never answered: SubmitPass"),
        (_a_loop_spins, "mixed", "stuck: no end of guest"),
        (_messages_are_lost, "mixed", "stuck: no end of guest"),
    ],
)
def test_what_is_broken_is_found(
    broken: Break, scenario: Scenario | str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    failure = _first_failure(scenario)

    assert reason in failure.reason
    assert failure.tail
