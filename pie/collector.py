"""How a process that serves lets Python look for reference cycles."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG, MIDDLE, OLD = 100_000, 50, 100


@contextmanager
def resting_collector() -> Iterator[None]:
    """Look for no cycles until `relax_collector`, or the end of the context, which a start that
    fails comes to: it makes objects, and hardly drops any.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def relax_collector() -> None:
    """Leave alone what there is now, and look at new objects less often.

    For programs that do nothing but serve, once all is loaded; an application that embeds the
    engine decides for itself. Thousands of guests make tens of thousands of objects per step that
    live until the next: at Python's own settings the collector walks them again and again
    (docs/decisions/0011).
    """
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
