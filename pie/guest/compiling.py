"""A process that compiles one component into the cache, and ends.

The component is its stdin; see `pie.guest.apart` for why, and for who starts it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

import attrs

from pie.errors import PieError, ProgramError, UsageError

REFUSED, UNUSABLE = 3, 4
"""Exit codes: the component is at fault, or the cache; why is on stdout."""


@attrs.frozen(kw_only=True)
class Task:
    """What the process is told on its command line."""

    cache: str
    """The folder."""
    fuel: bool
    nice: int
    """How much it steps back: 19 is most."""
    seconds: int
    """Of processor time; beyond it the process is killed."""
    memory: int
    """Bytes of address space; beyond it the process fails."""


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    _step_back(task)
    try:
        _compile(task, sys.stdin.buffer.read())
    except PieError as error:
        sys.stdout.write(str(error))
        sys.exit(REFUSED if isinstance(error, ProgramError) else UNUSABLE)


def _step_back(task: Task) -> None:
    """Before there are any threads, which would be told nothing of it."""
    os.setpriority(os.PRIO_PROCESS, 0, task.nice)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (task.seconds, task.seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (task.memory, task.memory))
    with suppress(OSError):  # no such file: then the system has no such choice to make
        Path("/proc/self/oom_score_adj").write_text("1000")


def _compile(task: Task, source: bytes) -> None:
    # Not before there are limits: loading the compiler is part of the work.
    from . import _capi
    from .cache import Cache, configuration
    from .source import read_source

    cache = Cache(Path(task.cache), _capi.new_engine(fuel=task.fuel), configuration(task.fuel))
    try:
        cache.component(read_source(source))
    except OSError as error:
        raise UsageError(f"cannot keep compiled code in {task.cache}: {error.strerror}") from None


if __name__ == "__main__":
    main()
