"""Concurrency inside a component: coroutines over `wasi:io/poll`, and nothing else.

A component has one thread and no event loop of its own. A *strand* is a coroutine that runs until
it yields a pollable or a `Group` of new strands. With one strand waiting its pollable is blocked
on, which costs one host call; with several, all are polled together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass, field
from types import coroutine
from typing import Any


@dataclass(eq=False)
class Group:
    """Strands whose parent waits until all have ended or one has failed."""

    strands: list[Strand]
    parent: Strand
    left: int


@dataclass(eq=False)
class Strand:
    """One coroutine and what came of it."""

    coroutine: Coroutine[Any, Any, Any]
    group: Group | None = None
    result: Any = None
    error: Exception | None = None
    ended: bool = False
    children: list[Strand] = field(default_factory=list)


class Loop:
    """Runs one coroutine and all that it gathers.

    `block(pollable)` waits for one, `poll(pollables)` for several and returns the ready indices.
    """

    def __init__(
        self, block: Callable[[Any], None], poll: Callable[[list[Any]], Sequence[int]]
    ) -> None:
        self._block = block
        self._poll = poll
        self._ready: deque[Strand] = deque()
        self._waiting: list[tuple[Any, Strand]] = []

    @property
    def alone(self) -> bool:
        """Whether the strand that runs is the only one: to wait, it may block by itself."""
        return not (self._ready or self._waiting)

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        """The result of `main`; raises what it raises."""
        root = Strand(main)
        self._ready.append(root)
        while not root.ended:
            while self._ready:
                strand = self._ready.popleft()
                if not strand.ended:
                    self._step(strand)
            if self._waiting:
                self._wait()
        if root.error is not None:
            raise root.error
        return root.result

    def _step(self, strand: Strand) -> None:
        error, strand.error = strand.error, None
        value, strand.result = strand.result, None
        try:
            request = (
                strand.coroutine.send(value) if error is None else strand.coroutine.throw(error)
            )
        except StopIteration as stop:
            self._end(strand, stop.value, None)
        except Exception as failure:  # noqa: BLE001  # raised again in the parent strand or by run
            self._end(strand, None, failure)
        else:
            if isinstance(request, list):
                self._start(strand, request)
            else:
                self._waiting.append((request, strand))

    def _start(self, parent: Strand, coroutines: list[Coroutine[Any, Any, Any]]) -> None:
        group = Group([], parent, len(coroutines))
        group.strands = [Strand(each, group) for each in coroutines]
        parent.children = group.strands
        self._ready.extend(group.strands or [parent])

    def _end(self, strand: Strand, result: Any, error: Exception | None) -> None:
        strand.ended, strand.result, strand.error = True, result, error
        group = strand.group
        if group is None or group.parent.ended:
            return
        group.left -= 1
        if error is None and group.left:
            return
        parent = group.parent
        if error is not None:
            parent.error = error
            self._cancel(parent)
        else:
            parent.result = [each.result for each in group.strands]
        parent.children = []
        self._ready.append(parent)

    def _cancel(self, parent: Strand) -> None:
        """End the unfinished strands below `parent`, innermost first."""
        for strand in parent.children:
            if not strand.ended:
                self._cancel(strand)
                strand.ended = True
                strand.coroutine.close()
        self._waiting = [(what, strand) for what, strand in self._waiting if not strand.ended]

    def _wait(self) -> None:
        waiting = self._waiting
        if len(waiting) == 1:
            self._block(waiting[0][0])
            woken = {0}
        else:
            woken = set(self._poll([pollable for pollable, _ in waiting]))
        self._waiting = [each for index, each in enumerate(waiting) if index not in woken]
        self._ready.extend(waiting[index][1] for index in sorted(woken))


@coroutine
def suspend(request: Any) -> Generator[Any, Any, Any]:
    """Yield a pollable, or a list of coroutines to run, to the loop; what the loop answers."""
    return (yield request)
