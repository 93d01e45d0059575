"""Names for the numbers that identify things."""

from enum import IntEnum
from typing import NewType

InstanceId = NewType("InstanceId", int)
"""Launch number of an instance in this engine: a smaller number is an older instance."""

QueueId = NewType("QueueId", int)
"""Number of a command queue within its instance, in order of creation."""

Pointer = NewType("Pointer", int)
"""Virtual id of a resource, private to (instance, model, resource kind)."""


class ResourceKind(IntEnum):
    """The `resource-type` numbers of `inferlet:core/common` (contract, section 2)."""

    # As a key of dictionaries on every pass's way: an enum's own hash is a Python function.
    __hash__ = int.__hash__

    KV_PAGE = 0
    EMBEDDING = 1
    ADAPTER = 2


class Priority(IntEnum):
    """Order of `inferlet:core/common.priority`; a larger number runs first."""

    LOW = 0
    NORMAL = 1
    HIGH = 2


class EventCode(IntEnum):
    """What a client hears of an instance (contract G3); all but MESSAGE are terminal."""

    MESSAGE = 0
    COMPLETED = 1
    ABORTED = 2
    EXCEPTION = 3
    SERVER_ERROR = 4
    OUT_OF_RESOURCES = 5
