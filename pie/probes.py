"""Rare places in the engine, named, so that a simulation can prove that it has been there.

A *sometimes* is a branch that most runs never take: an invariant that was checked only where
nothing is special says little. Whoever listens is told the name each time; when nobody does, a
place costs one call and one test for None (docs/decisions/0009). Names are unique and literal,
so that they can be listed from the source: see `pie.testing.rare`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_listener: Callable[[str], None] | None = None


def sometimes(what: str) -> None:
    """The rare thing `what` happens here and now."""
    if _listener is not None:
        _listener(what)


@contextmanager
def listening(listener: Callable[[str], None]) -> Iterator[None]:
    """Tell `listener` of rare places reached in here, in this process.

    It is called in the middle of things: it must neither wait nor change anything.
    """
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before
