"""The lines of a trace file: a JSON array of trace events, one on each line (docs/tracing.md).

The loop only collects tuples, `(kind, ...)` as the methods of `Lines` take them; text is made of
them in a worker thread. Trace viewers know the events' standard fields, `pie replay` their `args`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from enum import IntEnum, auto
from typing import Any, TypeAlias

import attrs

from pie.messages import ForwardPass, Rank

from .guests import Guest
from .ranges import ranges

VERSION = 2
"""Of what replay needs of the file."""
READABLE = (1, 2)
"""Versions that a reader knows: since 2 there are decodings."""

ENGINE = 1
"""Process number of the engine's own track; models and instances have the numbers after it."""

GAP = 0.002
"""Microseconds by which spans are shown shorter: rounded, the next one might seem to begin before
the end of the one before, and viewers drop what overlaps."""

Event: TypeAlias = tuple[Any, ...]


class Kind(IntEnum):
    """What an event tells; the values index `Lines.makers`."""

    META = 0
    PASS = auto()
    BATCH = auto()
    GUEST = auto()
    REQUEST = auto()
    PAGES = auto()
    INSTANT = auto()
    FOLLOW = auto()


@attrs.define
class PassRecord:
    """A pass or command on its way: what replay has to know of it, and when it went through what.

    Times are on Trio's clock, durations in seconds.
    """

    guest: Guest
    op: int
    """Number of this request among all that guests have made of the engine, in their order."""
    instance: int
    queue: int
    at: float
    """Submitted."""
    tid: int
    work: ForwardPass | None
    """None of a command."""
    after: Sequence[int]
    """Unfinished ones that it had to wait for, to keep the order of queues and data (`op`)."""
    data: Sequence[int]
    """Those of `after` whose results it reads."""
    waited: list[int]
    """Answers that the guest got since its request before this one (`op`): it may have needed
    them."""
    delay: float
    """From the last of those answers, or from the guest's request before, to the submission."""
    think: float
    """The part of `delay` in which the guest was running, or ready to."""
    batch: int = -1
    """Number of the first batch that had a piece of it."""
    steps: int = 0
    """Batches that had one."""


@attrs.define
class FollowRecord:
    """A pass of a decoding after its first, likewise."""

    guest: Guest
    op: int
    """Of the decoding."""
    queue: int
    at: float
    tid: int
    work: ForwardPass
    batch: int = -1
    steps: int = 0


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


class Lines:
    """Makes lines of events. Times are shown in microseconds since `start`, of Trio's clock."""

    def __init__(self, start: float) -> None:
        self._start = start
        self._pages: dict[tuple[int, int, int], tuple[int, ...]] = {}
        """The pages of the last pass shown of each (model, instance, queue)."""
        self._models: dict[int, dict[int, int]] = {}
        self.makers = (
            self.meta,
            self.passed,
            self.batch,
            self.guest,
            self.request,
            self.pages,
            self.instant,
            self.follow,
        )

    def of(self, events: Iterable[Event]) -> str:
        """The lines of `events`, each with what separates it from the one before."""
        makers = self.makers
        return "".join([makers[event[0]](*event[1:]) for event in events])

    def meta(self, name: str, pid: int, tid: int, args: dict[str, Any]) -> str:
        """A fact about a process or thread."""
        return (
            f',\n{{"ph":"M","name":{_text(name)},"pid":{pid},"tid":{tid},"ts":0,'
            f'"args":{_text(args)}}}'
        )

    def _span(self, pid: int, tid: int, began: float, ended: float) -> str:
        since = (began - self._start) * 1e6
        took = max((ended - began) * 1e6 - GAP, 0.0)
        return f',\n{{"ph":"X","pid":{pid},"tid":{tid},"ts":{since:.3f},"dur":{took:.3f}'

    def passed(
        self,
        pid: int,
        model: int,
        record: PassRecord,
        ended: float,
        priority: int,
        work: ForwardPass,
        more: dict[str, Any] | None,
    ) -> str:
        """A pass, from its submission to its answer."""
        # By hand, and each number once: this is a line per token, and `dumps` takes four times as
        # long. Two thirds of the rest are floats.
        r, count, pages = record, len(work.inputs), work.pages
        outputs = len(work.outputs)
        ranked = 0
        for output in work.outputs:
            ranked += type(output) is Rank
        at = f'"pid":{pid},"tid":{r.tid},"ts":{(r.at - self._start) * 1e6:.3f}'
        delay = repr(r.delay)
        think = delay if r.think == r.delay else repr(r.think)
        rest = ""
        if r.after:
            rest = f',"after":{r.after},"data":{r.data}'
        key = (model, r.instance, r.queue)
        if self._pages.get(key) != pages:
            self._pages[key] = pages
            rest += f',"pointers":{ranges(pages)}'
        if more:
            rest += "," + _text(more)[1:-1]
        arrow = ""
        if r.batch >= 0:  # to the batch it began in; `batch` has the other end
            arrow = f',\n{{"ph":"s","cat":"pass","name":"runs in","id":{r.op},{at}}}'
        return (
            f',\n{{"ph":"X",{at},"dur":{max((ended - r.at) * 1e6 - GAP, 0.0):.3f},'
            f'"cat":"pass","name":"{count} token{"s" if count > 1 else ""}","args":{{'
            f'"op":{r.op},"model":{model},"instance":{r.instance},"queue":{r.queue},'
            f'"priority":{int(priority)},"tokens":{count},"kv":{work.length},"pages":{len(pages)},'
            f'"sampled":{outputs - ranked},"ranked":{ranked},"batch":{r.batch},"steps":{r.steps},'
            f'"waited":{r.waited},"delay":{delay},"think":{think}{rest}}}}}{arrow}'
        )

    def follow(
        self, pid: int, model: int, record: FollowRecord, ended: float, error: str | None
    ) -> str:
        """A pass of a decoding after its first, which has the `op`."""
        r, fails = record, "" if error is None else f',"error":{_text(error)}'
        return (
            f'{self._span(pid, r.tid, r.at, ended)},"cat":"follow","name":"1 token","args":{{'
            f'"follows":{r.op},"model":{model},"kv":{r.work.length},"batch":{r.batch}{fails}}}}}'
        )

    def batch(
        self,
        pid: int,
        tid: int,
        number: int,
        began: float,
        ended: float,
        sizes: tuple[int, int, int],
        first: list[int],
        lost: str | None,
    ) -> str:
        """A step on the executor; `first` are the passes that began in it."""
        rows, passes, slots = sizes
        args = {"batch": number, "rows": rows, "passes": passes, "kv_slots": slots}
        if lost is not None:
            args["lost"] = lost  # type: ignore[assignment]
        line = self._span(pid, tid, began, ended)
        at = f'"pid":{pid},"tid":{tid},"ts":{(began - self._start) * 1e6:.3f}}}'
        ends = [
            f',\n{{"ph":"f","bp":"e","cat":"pass","name":"runs in","id":{op},{at}' for op in first
        ]
        name = "batch" if lost is None else "lost batch"
        return f'{line},"cat":"batch","name":"{name}","args":{_text(args)}}}' + "".join(ends)

    def guest(self, pid: int, tid: int, ready: float, stopped: float, now: float, what: str) -> str:
        """A guest was running, and then waited until `now`."""
        lines = ""
        if stopped > ready:
            lines = f'{self._span(pid, tid, ready, stopped)},"cat":"guest","name":"running"}}'
        if now > stopped:
            span = self._span(pid, tid, stopped, now)
            lines += f'{span},"cat":"guest","name":"waiting: {what}"}}'
        return lines

    def request(
        self, pid: int, tid: int, began: float, ended: float, name: str, args: dict[str, Any]
    ) -> str:
        """A question about pages or a barrier, from when it was taken to its answer."""
        span = self._span(pid, tid, began, ended)
        if args.get("end"):
            for key in [key for key in self._pages if key[1] == args["instance"]]:
                del self._pages[key]
        return f'{span},"cat":"request","name":{_text(name)},"args":{_text(args)}}}'

    def pages(self, pid: int, at: float, free: int, used: int, host: int) -> str:
        """Where a model's pages are."""
        return (
            f',\n{{"ph":"C","name":"KV pages","pid":{pid},"tid":0,'
            f'"ts":{(at - self._start) * 1e6:.3f},'
            f'"args":{{"used":{used},"host":{host},"free":{free}}}}}'
        )

    def instant(self, pid: int, tid: int, at: float, name: str, args: dict[str, Any]) -> str:
        """Something that takes no time."""
        return (
            f',\n{{"ph":"i","s":"p","pid":{pid},"tid":{tid},'
            f'"ts":{(at - self._start) * 1e6:.3f},"cat":"event","name":{_text(name)},'
            f'"args":{_text(args)}}}'
        )
