"""The errors of the engine; the class says who must act.

    PieError
    ├── GuestError           the inferlet's author: ends that guest with event 3
    │   └── LimitExceeded    ... because it went past a configured limit
    ├── OutOfResources       the operator: a request that can never fit (event 5)
    ├── PassFailed           nobody in particular: a forward pass failed on the device
    │   ├── PageLost         ... because a page of it was lost on its way to the device
    │   └── DeviceStalled    the operator: the device does not answer
    ├── ProgramError         whoever made the component: it cannot be loaded
    ├── ModelError           whoever made or named the model file
    ├── UsageError           whoever called the engine or the command line
    └── Closed               the caller: the actor it asks has ended

Anything that is not a PieError is our own bug and is never turned into an answer.
"""

from __future__ import annotations

from collections.abc import Iterator


class PieError(Exception):
    """Base of all errors that have an addressee."""


class GuestError(PieError):
    """The guest broke a rule; the text names the rule with the values."""


class LimitExceeded(GuestError):
    """The guest went past one of its limits."""


class OutOfResources(PieError):
    """A request for pages that this engine can never grant."""


class PassFailed(PieError):
    """A forward pass, or one it depends on, failed on the device (contract F7)."""


class PageLost(PassFailed):
    """The contents of a KV page were lost on their way back from host memory."""


class DeviceStalled(PassFailed):
    """The device has not answered in time and may still be at it: asking again would not help."""


class ProgramError(PieError):
    """A program cannot be read, compiled or linked."""


class ModelError(PieError):
    """A model cannot be found, read or run."""


class UsageError(PieError):
    """A wrong argument, option or configuration value."""


class Closed(PieError):
    """The actor that should have answered has ended."""


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors that Trio's nurseries have put into groups, the first one first."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error
