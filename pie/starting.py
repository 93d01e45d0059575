"""Runners that work without a thread of Python's: a call begins a step, a bell tells of its end."""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from typing import Protocol, runtime_checkable

from .batch import Batch, BatchResult, ModelRunner
from .multistep import MultiStep


class Bell:
    """A descriptor that a device writes 8 bytes to, without Python, to wake the loop.

    It is closed when nobody has it any more: whoever may yet ring it holds it.
    """

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self.descriptor)

    def silence(self) -> None:
        """Forget that it rang, if it did."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)


@runtime_checkable
class StartingRunner(ModelRunner, Protocol):
    """A `ModelRunner` that can begin a step and leave it to itself.

    From `start` or `start_steps` until `over` nothing else may be asked of it. It holds what it was
    given until the next call. It may make several steps in one call (`ModelInfo.multi_steps`).
    """

    @property
    def bell(self) -> Bell:
        """Rung when what was started is over, and after each step that `MultiStep.announce` asks
        for, once its outputs and `done` can be read. It may ring late, and for nothing.
        """
        ...

    @property
    def over(self) -> bool:
        """Whether what was started last has ended."""
        ...

    def start(self, batch: Batch, /) -> BatchResult:
        """Begin one step: what it draws is in the result when it is over, and nothing before.

        Takes no longer than it takes to lay the step out. ValueError before anything is computed
        if the batch is not sound; PassFailed if it is lost.
        """
        ...

    def start_steps(self, steps: MultiStep, /) -> None:
        """Begin several, as `start` begins one."""
        ...
