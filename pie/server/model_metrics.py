"""What is counted of one model while it works: at each step, and as little as can be per pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import attrs
import trio

from pie.actors.ledger import Ledger
from pie.actors.passes import Pending, PendingCommand
from pie.actors.planner import Chunk
from pie.batch import Batch
from pie.errors import PassFailed, PieError
from pie.ids import InstanceId
from pie.messages import SchedulerMessage

from .buckets import ROWS, SECONDS, STEP_SECONDS, Buckets


class DeviceFacts(Protocol):
    """What a device that is watched knows of its steps."""

    @property
    def running_since(self) -> float | None:
        """When the step that runs began, on Trio's clock."""
        ...

    @property
    def failures(self) -> int: ...

    @property
    def consecutive_failures(self) -> int:
        """Steps that failed since the last one that did not."""
        ...

    @property
    def last_failure(self) -> str:
        """Why; empty if there was none."""
        ...

    def stalled(self, now: float, /) -> bool:
        """Whether the step that runs has taken longer than any may."""
        ...


@attrs.define(eq=False)
class ModelMetrics:
    """Observes the scheduler of a model, and its device."""

    step_seconds: Buckets = attrs.field(factory=lambda: Buckets(STEP_SECONDS))
    step_rows: Buckets = attrs.field(factory=lambda: Buckets(ROWS))
    queue_seconds: Buckets = attrs.field(factory=lambda: Buckets(SECONDS))
    """From the submission of a pass to the beginning of its first step."""
    pass_seconds: Buckets = attrs.field(factory=lambda: Buckets(SECONDS))
    """From the submission of a pass to the end of its last step."""
    failed: int = 0
    """Passes that were lost on the device, or needed one that was."""
    progressed_at: float = 0.0
    """When a step last began or ended, or something else was done, on Trio's clock."""
    device: DeviceFacts | None = None
    _began: float = 0.0
    _ledger: Ledger | None = None

    def on_step(self, batch: Batch, seconds: float) -> None:
        """The device has run `batch`."""
        self.step_seconds.add(seconds)
        self.step_rows.add(batch.rows)

    def pending(self) -> list[Pending]:
        """What has been submitted and is not finished."""
        return [] if self._ledger is None else list(self._ledger.planner)

    def queued_of(self) -> Counter[InstanceId]:
        """How many passes and commands of each instance are not finished."""
        return Counter(work.instance for work in self.pending())

    # -------------------------------------------------- as an observer of the scheduler

    def opened(self, ledger: Ledger, /) -> None:
        self._ledger = ledger
        self.progressed_at = trio.current_time()

    def took(self, message: SchedulerMessage, /) -> None:
        pass

    def submitted(self, work: Pending, /) -> None:
        pass

    def began(self, step: Sequence[Chunk], batch: Batch, /) -> None:
        self._began = self.progressed_at = trio.current_time()

    def followed(self, step: Sequence[Chunk], batch: Batch, /) -> None:
        self.began(step, batch)

    def ended(self, step: Sequence[Chunk], lost: PieError | None, /) -> None:
        now = self.progressed_at = trio.current_time()
        if lost is not None:
            return  # it is repeated, or its passes are counted as failed
        # A step is in order of submission.
        first = [chunk.work.submitted_at for chunk in step if chunk.first == 0]
        self.queue_seconds.add_since(first, self._began)
        last = [chunk.work.submitted_at for chunk in step if chunk.last]
        self.pass_seconds.add_since(last, now)

    def proceeded(self, work: Pending, /) -> None:
        pass

    def finished(self, work: Pending, /) -> None:
        if work.error is not None:
            self.failed += isinstance(work.error, PassFailed)
        elif isinstance(work, PendingCommand):
            self.progressed_at = trio.current_time()

    def moved_out(self, numbers: Sequence[int], /) -> None:
        self.progressed_at = trio.current_time()

    def moved_back(self, numbers: Sequence[int], /) -> None:
        self.progressed_at = trio.current_time()
