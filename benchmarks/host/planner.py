"""What a request costs in the pure cores of the scheduler, by the length of the queue.

The ledger, the planner and the packer are driven directly: no guest, no channel, no loop. Every
round each instance submits one decode pass, one step takes them all, and each is answered.
"""

from __future__ import annotations

import math
import time
from typing import Any

import attrs
import numpy as np

from pie.activity import Activity, Mover
from pie.actors.ledger import Ledger
from pie.actors.packing import Packer
from pie.actors.pages import PageTable
from pie.actors.planner import BatchPlanner
from pie.batch import BatchResult
from pie.ids import InstanceId, Pointer, Priority, QueueId, ResourceKind
from pie.messages import AllocatePointers, ForwardPass, OpenInstance, Sample, SubmitPass

from .machine import Row

PAGE_SIZE = 16
STAGES = ("submit", "plan", "pack", "settle")


@attrs.define(eq=False)
class Cores:
    """A ledger on a table with room for all, and what was allocated in it."""

    table: PageTable
    planner: BatchPlanner
    ledger: Ledger
    pages: dict[InstanceId, tuple[Pointer, ...]] = attrs.field(factory=dict)

    @classmethod
    def of(cls, requests: int, pages: int, step_tokens: int) -> Cores:
        table = PageTable(PAGE_SIZE, requests * pages, 0)
        planner = BatchPlanner(step_tokens, 2.0)
        cores = cls(table, planner, Ledger(table, planner))
        activity = Activity()
        for number in range(requests):
            instance = InstanceId(number)
            cores.ledger.open(
                OpenInstance(instance, "local", number, Mover([activity]), lambda error: None)
            )
            asked = AllocatePointers(instance, ResourceKind.KV_PAGE, pages)
            table.allocate(instance, ResourceKind.KV_PAGE, pages, asked)
            (answer,) = table.answers()
            cores.pages[instance] = answer.value
        return cores

    def requests(self, length: int) -> list[SubmitPass]:
        """One decode pass of every instance at a length, as a guest's `execute` would send it."""
        return [
            SubmitPass(
                instance,
                QueueId(0),
                Priority.NORMAL,
                ForwardPass(
                    inputs=(97,),
                    positions=(length - 1,),
                    pages=pages,
                    length=length,
                    outputs=(Sample(0, 0.0),),
                ),
            )
            for instance, pages in self.pages.items()
        ]

    def round(self, length: int, spent: dict[str, float]) -> None:
        """Take every request through all stages, adding the processor time of each."""
        requests = self.requests(length)
        clock = time.thread_time
        began = clock()
        for request in requests:
            self.ledger.submit(request, 0.0)
        spent["submit"] += clock() - began
        while len(self.planner):
            self._step(spent)
        self._check(requests)

    def _step(self, spent: dict[str, float]) -> None:
        clock = time.thread_time
        began = clock()
        assert self.planner.has_work(), "a pass waits for nothing and cannot run"
        self.planner.next_command()
        self.planner.supply()
        step = self.planner.next_step(0.0)
        planned = clock()
        packer = Packer(self.table)
        for chunk in step:
            packer.add(chunk)
            chunk.work.running = True
        batch = packer.batch()
        packed = clock()
        rows = len(batch.sampled_rows)
        result = BatchResult(
            tokens=np.full(rows, 98, dtype=np.int32), sampled_finite=np.ones(rows, dtype=np.bool_)
        )
        answered = clock()
        packer.unpack(result)
        for chunk in step:
            work = chunk.work
            work.running = False
            self.planner.ran(chunk)
            self.ledger.finish(work)
        self.table.answers()
        settled = clock()
        spent["plan"] += planned - began
        spent["pack"] += packed - planned
        spent["settle"] += settled - answered

    def _check(self, requests: list[SubmitPass]) -> None:
        wrong = sum(request.reply.take().tokens != [98] for request in requests)
        assert wrong == 0, f"{wrong} of {len(requests)} requests have a wrong answer"
        assert len(self.planner) == 0, f"{len(self.planner)} passes are left"


def measure(requests: int, pages: int, *, quick: bool, step_tokens: int | None = None) -> Row:
    """Microseconds per request and stage; with `step_tokens`, in steps of so many, else in one.

    The best of several blocks of rounds: caches that others have emptied are not the planner's.
    """
    cores = Cores.of(requests, pages, step_tokens or requests)
    total = 3_000 if quick else 20_000
    rounds = max(1, total // requests)
    length = (pages - 1) * PAGE_SIZE + 1
    cores.round(length, dict.fromkeys(STAGES, 0.0))
    best: dict[str, float] = dict.fromkeys(STAGES, math.inf)
    for _ in range(1 if quick else 3):
        spent = dict.fromkeys(STAGES, 0.0)
        for number in range(rounds):
            cores.round(length + 1 + number % (PAGE_SIZE - 1), spent)
        if sum(spent.values()) < sum(best.values()):
            best = spent
    cores.table.check()
    figures: dict[str, Any] = {
        f"{stage}_us": seconds / rounds / requests * 1e6 for stage, seconds in best.items()
    }
    return {"requests": requests, "pages": pages, **figures, "total_us": sum(figures.values())}
