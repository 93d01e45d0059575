"""Whose turn it is on the loop: of guests that begin or go on after a slice, a few per pass.

Guests that wake from a wait run at once, and mostly for a fraction of a slice. Those that stand
in this line may each use a whole one, so a pass of the loop lets through only as many as fit in
one slice together: one that spins, or dozens that block again at once. (With one per pass,
guests whose slice happened to end got one turn while all others got one each: of a thousand that
take a tenth of a slice per token, all but a dozen stood in line.)
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType

import attrs
import trio
from trio.lowlevel import Abort, Task

WIDEST = 64
"""Guests that one pass lets through at most."""


@attrs.define(eq=False)
class Turns:
    """A line, first come, first served; `async with` it around what needs a turn.

    What is done inside must not wait.
    """

    seconds: float
    """What the guests of one pass may use together before the others of it wait for the next."""
    _now: Callable[[], float] = time.perf_counter
    _line: OrderedDict[Task, None] = attrs.field(factory=OrderedDict)
    _admitted: int = 0
    """Let through, and not done."""
    _used: float = 0.0
    _began: float = 0.0
    _width: int = 1
    """How many the next pass lets through: doubled or halved by what the last one took."""

    async def __aenter__(self) -> None:
        if self._admitted:
            await self._stand(last=True)
        else:
            self._admitted = 1
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled:
                self._leave()
                raise
        while self._used >= self.seconds:
            if self._admitted > 1:
                self._admitted -= 1
                await self._stand(last=False)
            else:  # the last of a full pass is the first of the next
                self._next_pass(already=1)
                await trio.lowlevel.cancel_shielded_checkpoint()
        self._began = self._now()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._used += self._now() - self._began
        self._leave()

    def locked(self) -> bool:
        """Whether anybody has a turn or stands in line."""
        return bool(self._admitted or self._line)

    async def _stand(self, *, last: bool) -> None:
        task = trio.lowlevel.current_task()
        self._line[task] = None
        self._line.move_to_end(task, last=last)

        def abort(_: object) -> Abort:
            del self._line[task]
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _leave(self) -> None:
        self._admitted -= 1
        if not self._admitted:
            self._next_pass(already=0)

    def _next_pass(self, *, already: int) -> None:
        """Let the first of the line through, to run in the loop's next pass."""
        if self._used >= self.seconds:
            self._width = max(1, self._width // 2)
        elif self._used < self.seconds / 2:
            self._width = min(WIDEST, self._width * 2)
        self._used = 0.0
        self._admitted = already
        while self._line and self._admitted < self._width:
            task, _ = self._line.popitem(last=False)
            self._admitted += 1
            trio.lowlevel.reschedule(task)
