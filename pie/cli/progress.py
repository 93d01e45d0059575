"""What we are doing while there is nothing to show yet: on a terminal's stderr only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

Say: TypeAlias = Callable[[str], None]


@contextmanager
def progress() -> Iterator[Say]:
    """Show the latest text with a moving bar and the time since it was said, then clear it."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def say(text: str) -> None:
            bar.reset(task, total=None, description=text)

        yield say


def aloud(say: Say) -> Say:
    """`say`, for what takes minutes: where no bar can be shown, as lines."""
    if sys.stderr.isatty():
        return say

    def write(text: str) -> None:
        sys.stderr.write(f"pie: {text}\n")

    return write
