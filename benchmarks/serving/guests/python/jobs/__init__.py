"""Every inferlet by its name: a coroutine function from its specification to its result."""

from collections.abc import Awaitable, Callable
from typing import Any

from . import fanout, objects, plain, speculation, tools, tree

JOBS: dict[str, Callable[[dict[str, Any]], Awaitable[Any]]] = {
    "completion": plain.completion,
    "session": plain.session,
    "sampling": plain.sampling,
    "tree": tree.run,
    "fanout": fanout.run,
    "objects": objects.run,
    "tools": tools.run,
    "speculation": speculation.run,
}
