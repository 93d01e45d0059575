"""Runs a trace again, with no model and no guest: its requests, on the real scheduler.

Each instance of the record makes its requests in their order, each after the answers it had in the
record and after the same delay; how long those answers take is the scheduler's and the simulated
machine's, in virtual time. A guest counts as moving (see `pie.activity`) in the part of a delay in
which it was running in the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import attrs
import trio

from pie.activity import Mover
from pie.errors import PieError, UsageError, leaves
from pie.ids import InstanceId
from pie.mailbox import Ask
from pie.messages import CancelDecoding, EndInstance, ModelService, OpenInstance, SubmitDecoding
from pie.trace.figures import Figures, Service, figures, served
from pie.trace.reading import BatchFacts, InstanceFacts, ModelFacts, Record

from ..determinism import run_simulated
from .agenda import Agenda
from .blank import BatchWatch, blank_info
from .requests import Unplayable, learn, message_of, order_of_names
from .services import MakeDevice, scheduling_of, start_service
from .sources import Bell, Source, Step


@attrs.frozen
class Replayed:
    """What became of a record under other conditions."""

    services: list[Service]
    batches: list[BatchFacts]
    figures: Figures
    given_up: dict[int, str]
    """Instances that could not go on, and why."""


def replay(
    record: Record,
    device: MakeDevice,
    *,
    scheduling: Mapping[str, Any] | None = None,
    pages: int | None = None,
    seed: int = 0,
) -> Replayed:
    """Run `record` on what `device` makes for each model; blocks, in virtual time.

    `scheduling` are settings that differ from the recorded ones, `pages` another number of KV
    pages. UsageError for settings that do not exist, and if no pass comes through.
    """
    run = _Replay(record, device, scheduling or {}, pages)
    try:
        return run_simulated(run.run, seed=seed)
    except* UsageError as group:
        raise next(leaves(group)) from None


class _Replay:
    def __init__(
        self, record: Record, device: MakeDevice, scheduling: Mapping[str, Any], pages: int | None
    ) -> None:
        self._record, self._device = record, device
        self._scheduling, self._pages = scheduling, pages
        self._steps = {request.op: Step(request) for request in record.requests}
        self._needed: dict[int, Step] = {}
        """By the `op` of an answer: who comes after it."""
        users = {facts.instance: facts.user for facts in record.instances}
        self._order = order_of_names(record.requests, users)
        self._parked: dict[int, list[tuple[Source, Step]]] = {}
        """By the `op` that has to be asked before theirs: who waits for another instance."""
        self._agenda = Agenda()
        self._batches: list[BatchFacts] = []
        self._sources: list[Source] = []
        self._decodings: dict[SubmitDecoding, Step] = {}

    async def run(self) -> Replayed:
        async with trio.open_nursery() as nursery:
            services = {
                facts.model: self._start_model(facts, nursery) for facts in self._record.models
            }
            first = min(facts.launched for facts in self._record.instances)
            self._began = trio.current_time()
            steps: dict[int, list[Step]] = {}
            for step in self._steps.values():
                steps.setdefault(step.request.instance, []).append(step)
            for facts in self._record.instances:
                if facts.instance in steps:
                    at = self._began + facts.launched - first
                    self._prepare(facts, steps[facts.instance], services, at)
            await self._agenda.run()
            for source in self._sources:
                self._end(source, "")
            for service in services.values():
                service.close()
        return self._result()

    def _start_model(self, facts: ModelFacts, nursery: trio.Nursery) -> ModelService:
        info = blank_info(facts, self._pages)
        config = scheduling_of(facts, self._scheduling)
        watch = BatchWatch(facts.model, self._batches, self._proceeded)
        return start_service(facts.model, info, self._device(facts, info), config, watch, nursery)

    # ---------------------------------------------------------------- the requests

    def _prepare(
        self,
        facts: InstanceFacts,
        steps: list[Step],
        services: Mapping[int, ModelService],
        at: float,
    ) -> None:
        used = sorted({step.request.model for step in steps})
        mover = Mover([services[model].activity for model in used])
        source = Source(facts, steps, mover, [services[model] for model in used])
        self._sources.append(source)
        for step, later in pairwise(steps):
            step.following = later
        for step in steps:
            for op in step.request.waited:
                if op in self._steps:
                    step.needs += 1
                    self._needed[op] = step
        self._agenda.at(at, -1, lambda: self._launch(source))

    def _launch(self, source: Source) -> None:
        def evict(error: PieError) -> None:
            self._end(source, str(error))

        number, user = InstanceId(source.facts.instance), source.facts.user
        for service in source.services:
            service.tell(OpenInstance(number, user, 0, source.mover, evict))
        self._satisfied(source, source.steps[0])

    def _satisfied(self, source: Source, step: Step) -> None:
        """One of those that `step` comes after is there."""
        step.needs -= 1
        if step.needs or source.over is not None:
            return
        request, now = step.request, trio.current_time()
        outside = max(0.0, request.delay - request.think)
        if outside > 0:
            self._agenda.at(now + outside, request.op, source.start)
        else:
            source.start()
        self._agenda.at(now + request.delay, request.op, lambda: self._issue(source, step))

    def _issue(self, source: Source, step: Step) -> None:
        if source.over is None and not self._park(source, step):
            try:
                message = message_of(step.request, source.pointers)
            except Unplayable as error:
                self._end(source, str(error))
            else:
                self._send(source, step, message)
        source.stop()

    def _park(self, source: Source, step: Step) -> bool:
        """Whether `step` has to wait for a request of another instance, of which it is told."""
        for op in self._order.get(step.request.op, ()):
            if op in self._steps and not self._steps[op].past:
                self._parked.setdefault(op, []).append((source, step))
                return True
        return False

    def _pass_by(self, step: Step) -> None:
        """`step` has been made, or never will be: nobody waits for it any longer."""
        step.past = True
        for source, parked in self._parked.pop(step.request.op, ()):
            source.start()
            action = partial(self._issue, source, parked)
            self._agenda.at(trio.current_time(), parked.request.op, action)

    def _send(self, source: Source, step: Step, message: Any) -> None:
        step.message, step.issued = message, trio.current_time()
        service = next(s for s in source.services if s.index == step.request.model)
        if isinstance(message, Ask):
            self._agenda.expect(step.request.op)
            message.reply.add(Bell(lambda: self._answered(source, step)))
        service.tell(message)
        if isinstance(message, SubmitDecoding):
            self._decodings[message] = step
            if not step.request.times:
                service.tell(CancelDecoding(message, 0))  # before it began
        self._pass_by(step)
        if step.following is not None:
            self._satisfied(source, step.following)

    def _proceeded(self, message: SubmitDecoding) -> None:
        self._decodings[message].times.append(trio.current_time())

    def _answered(self, source: Source, step: Step) -> None:
        step.answered, step.error = trio.current_time(), step.message.reply.error
        self._agenda.came(step.request.op)
        try:
            learn(step.request, step.message, source.pointers)
        except Unplayable as error:
            self._end(source, str(error))
        if step.request.op in self._needed:
            self._satisfied(source, self._needed[step.request.op])

    def _end(self, source: Source, reason: str) -> None:
        """It makes no further requests; whoever shared with it keeps what it shared."""
        if source.over is not None:
            return
        source.over = reason
        for step in source.steps:
            if not step.past:
                self._pass_by(step)
        for service in source.services:
            service.tell(EndInstance(InstanceId(source.facts.instance), drain=False))

    # ------------------------------------------------------------------ the result

    def _result(self) -> Replayed:
        users = {facts.instance: facts.user for facts in self._record.instances}
        passes = [step for step in self._steps.values() if step.request.name == "pass"]
        good = [step for step in passes if step.answered >= 0 and step.error is None]
        if not good:
            reasons = {source.over for source in self._sources if source.over}
            text = next(iter(sorted(reasons)), "every pass failed")
            raise UsageError(f"no pass of the trace came through: {text}")
        services: list[Service] = []
        for step in good:
            user = users[step.request.instance]
            cancelled = step.request.is_decoding and not step.request.times
            times = [] if cancelled else [*step.times, step.answered]
            services += served(step.request, user, step.issued, times, self._began)
        failed = len(passes) - len(good)
        given_up = {s.facts.instance: s.over for s in self._sources if s.over}
        return Replayed(services, self._batches, figures(services, self._batches, failed), given_up)
