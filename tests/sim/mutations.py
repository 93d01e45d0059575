"""Bugs on purpose: what the sweep over seeds has to find, each a small change of the source."""

from __future__ import annotations
import __future__

import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import attrs

from pie.actors import binding, hazards, ledger, room
from pie.actors.batching import Scheduler
from pie.actors.binding import Binding
from pie.actors.broker import Line
from pie.actors.exports import ExportBook
from pie.actors.fairness import FairOrder
from pie.actors.ledger import Ledger
from pie.actors.packing import Packer
from pie.actors.pages import PageTable
from pie.actors.passes import Pending
from pie.actors.planner import _Step
from pie.actors.pools import HostPool, Pool
from pie.actors.queue import CommandQueue
from pie.actors.relocation import Relocation
from pie.actors.requests import Copy
from pie.actors.room import Room
from pie.actors.steps import StepRunner
from pie.actors.supervisor import Supervisor
from pie.outbox import Outbox


@attrs.frozen(kw_only=True)
class Mutation:
    """In the source of `owner.function`, `old` becomes `new`."""

    name: str
    owner: Any
    function: str
    old: str
    new: str
    scenario: str = "mixed"
    """Where it shows soonest."""
    first: int = 0
    """A seed that has shown it: tried before the others, for speed."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The engine has the bug in here. LookupError if the source is another by now."""
        original = inspect.getattr_static(self.owner, self.function)
        with mock.patch.object(self.owner, self.function, self._mutated(original)):
            yield

    def _mutated(self, original: Callable[..., Any]) -> Any:
        source = textwrap.dedent(inspect.getsource(original))
        if self.old not in source:
            raise LookupError(f"{self.function} has no {self.old!r}: adapt {self.name!r}")
        source = source.replace(self.old, self.new)
        code = compile(source, f"<{self.name}>", "exec", __future__.annotations.compiler_flag)
        made: dict[str, Any] = {}
        exec(code, original.__globals__, made)
        return made[self.function]


MUTATIONS = (
    Mutation(
        name="a page is freed while a pass uses it",
        owner=Room,
        function="reclaim",
        old="if resource.holders or resource.uses:",
        new="if resource.holders:",
    ),
    Mutation(
        name="a reply is lost",
        owner=Ledger,
        function="_finish_one",
        old="asked.reply.answer(answer)",
        new="work.sequence % 9 and asked.reply.answer(answer)",
    ),
    Mutation(
        name="an export does not count as a holder",
        owner=ExportBook,
        function="add",
        old="resource.holders += 1",
        new="pass",
    ),
    Mutation(
        name="a use is not counted down",
        owner=Binding,
        function="finish",
        old="self._release(pending.slots)",
        new="pass",
    ),
    Mutation(
        name="the youngest is served first for room",
        owner=room,
        function="_age",
        old="request.instance, request.arrival",
        new="-request.instance, request.arrival",
        scenario="memory",
    ),
    Mutation(
        name="a task is leaked with each instance",
        owner=Supervisor,
        function="_launch",
        old="message.reply.answer(",
        new="instances.start_soon(trio.sleep_forever); message.reply.answer(",
    ),
    Mutation(
        name="writers are not counted down",
        owner=Binding,
        function="finish",
        old="page.writers -= 1",
        new="pass",
    ),
    Mutation(
        name="shared pages are written without a copy",
        owner=Binding,
        function="_bind",
        old="pages[index].holders > 1",
        new="False",
        scenario="order",
    ),
    Mutation(
        name="a copy takes over a page that others use",
        owner=Copy,
        function="_takes_over",
        old="self.work.finished or self.source.holders or self.source.number is None",
        new="self.work.finished or self.source.number is None",
        scenario="order",
        first=7,
    ),
    Mutation(
        name="an import is given before it is written",
        owner=ExportBook,
        function="import_",
        old="if key in self._pending:",
        new="if False:",
        scenario="order",
        first=3,
    ),
    Mutation(
        name="a queue is not first in, first out",
        owner=Ledger,
        function="_enqueue",
        old="if last is not None:",
        new="if last is not None and pending.sequence % 3:",
        scenario="order",
        first=19,
    ),
    Mutation(
        name="a barrier is answered early",
        owner=CommandQueue,
        function="advance",
        old="elif not entry.finished:",
        new="elif not entry.finished and len(self._line) % 2:",
        scenario="order",
    ),
    Mutation(
        name="messages that were read still count as moving",
        owner=Scheduler,
        function="_take",
        old="self._activity.stop()",
        new="isinstance(message, FreePointers) or self._activity.stop()",
    ),
    Mutation(
        name="a place in host memory is given twice",
        owner=HostPool,
        function="take",
        old="heapq.heappop(self.free)",
        new="self.free[0]",
        scenario="memory",
    ),
    Mutation(
        name="a page's next owner finds what is in it",
        owner=Pool,
        function="take",
        old="if number in self.used_before:",
        new="if False:",
        scenario="order",
    ),
    Mutation(
        name="slots are overwritten under those who read them",
        owner=hazards,
        function="_order_on",
        old="overwrites = first < end and first < other_reads",
        new="overwrites = False",
        scenario="order",
        first=1,
    ),
    Mutation(
        name="slots are read before they are written",
        owner=hazards,
        function="_order_on",
        old="depends = other_first < min(other_end, reads)",
        new="depends = False",
        first=1,
    ),
    Mutation(
        name="embedding slots are not ordered",
        owner=binding,
        function="order_by_slots",
        old="if other.writes_slot(slot) or new.writes_slot(slot):",
        new="if False:",
        scenario="order",
        first=1,
    ),
    Mutation(
        name="what something urgent waits for stays as it is",
        owner=Pending,
        function="inherit",
        old="if priority > work.priority:",
        new="if False:",
        scenario="order",
        first=10,
    ),
    Mutation(
        name="who needs a failed pass is not failed",
        owner=ledger,
        function="fail_dependents",
        old="if later.instance == work.instance and later.error is None:",
        new="if False:",
        scenario="order",
        first=4,
    ),
    Mutation(
        name="what a failed pass should have written is read",
        owner=Ledger,
        function="submit",
        old="if lost is not None:",
        new="if False:",
        scenario="order",
        first=36,
    ),
    Mutation(
        name="a lost batch fails everybody in it",
        owner=StepRunner,
        function="_repeat_apart",
        old="if len(parts) == 1:",
        new="if parts:",
        scenario="order",
        first=4,
    ),
    Mutation(
        name="a terminal event is lost",
        owner=Supervisor,
        function="_run_instance",
        old="context.outbox.finish(last)",
        new="context.id % 5 and context.outbox.finish(last)",
    ),
    Mutation(
        name="a terminal event comes twice",
        owner=Outbox,
        function="finish",
        old="self._add(last)",
        new="self._add(last); self._add(last)",
    ),
    Mutation(
        name="pages are not given back at the end",
        owner=PageTable,
        function="close",
        old="self.drop_handles(instance)",
        new="pass",
    ),
    Mutation(
        name="pages that moved come back in each other's place",
        owner=Relocation,
        function="back",
        old="ints(list(returned))",
        new="ints(list(returned)[::-1])",
        scenario="memory",
        first=5,
    ),
    Mutation(
        name="who stands in line and ends keeps his place",
        owner=Room,
        function="leave",
        old="line.remove(request)",
        new="pass",
        scenario="memory",
    ),
    Mutation(
        name="a random stream starts again with each pass",
        owner=Packer,
        function="_add_outputs",
        old="pending.number, slot",
        new="0, slot",
    ),
    Mutation(
        name="a random stream depends on the batch",
        owner=Packer,
        function="_add_outputs",
        old="pending.number, slot",
        new="len(self.draws), slot",
    ),
    Mutation(
        name="chunks of a pass are run in the wrong order",
        owner=_Step,
        function="take",
        old="Chunk(work, work.done, count)",
        new="Chunk(work, work.remaining - count, count)",
    ),
    Mutation(
        name="exports of all users have one namespace",
        owner=PageTable,
        function="_key",
        old="self._users[instance], kind",
        new="'', kind",
        first=1,
    ),
    Mutation(
        name="a dropped receive loses its message",
        owner=Line,
        function="put_back",
        old="self._hand_out(self._given.pop(receive), receive.reply.take())",
        new="True",
        scenario="order",
        first=5,
    ),
    Mutation(
        name="a full outbox drops what it is given",
        owner=Outbox,
        function="put_nowait",
        old="return False",
        new="return True",
        scenario="endings",
        first=9,
    ),
    Mutation(
        name="what waits longest is looked at last",
        owner=FairOrder,
        function="picks",
        old="reversed(range(LEVELS))",
        new="range(0)",
        scenario="order",
    ),
    Mutation(
        name="a step that changed its input is repeated",
        owner=StepRunner,
        function="_repeat_apart",
        old="if all(chunk.work.repeatable for chunk in part):",
        new="if True:",
        scenario="order",
        first=29,
    ),
)
