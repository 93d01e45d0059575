"""Compiling in a process of its own, so that no component can harm what runs beside it.

Compiling takes all processors for seconds, hundreds of MiB, and cannot be interrupted. In a
process it is at the lowest priority, has limits in proportion to the component, gives its memory
back, and ends when nobody waits for it any more (docs/decisions/0014).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import attrs
import trio

import pie
from pie.errors import ProgramError, UsageError

from .compiling import REFUSED, UNUSABLE, Task

log = logging.getLogger(__name__)

_MIB = 1 << 20
_MOST_THREADS = 4


@attrs.frozen(kw_only=True)
class CompileLimits:
    """What compiling a component may take: ten times what components in Python take."""

    nice: int = 19
    seconds: int = 30
    """Of processor time, for a small one."""
    seconds_per_mib: int = 10
    memory: int = 2048 * _MIB
    """Bytes of address space, for a small one."""
    memory_per_byte: int = 64

    def task(self, cache: Path, size: int, *, fuel: bool) -> Task:
        """For a component of `size` bytes."""
        return Task(
            cache=str(cache),
            fuel=fuel,
            nice=self.nice,
            seconds=self.seconds + self.seconds_per_mib * size // _MIB,
            memory=self.memory + self.memory_per_byte * size,
        )


USUAL = CompileLimits()


async def compile_apart(task: Task, source: bytes, name: str) -> None:
    """Compile `source` into the cache; when cancelled, the process is killed.

    Raises ProgramError with one line if it is no component or takes more than it may, UsageError
    if the compiler does not start or the cache cannot be written.
    """
    try:
        done = await trio.run_process(
            [sys.executable, "-P", "-m", "pie.guest.compiling", json.dumps(attrs.asdict(task))],
            stdin=source,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            deliver_cancel=_kill,
            env=_environment(),
            # A Ctrl-C is for us. In a session of its own, Linux would give it half the time.
            process_group=0,
        )
    except OSError as error:  # no memory, or too many processes
        raise UsageError(f"{name}: cannot start the compiler: {error.strerror}") from None
    if done.returncode:
        raise _failure(done, task, name)


def _failure(done: subprocess.CompletedProcess[bytes], task: Task, name: str) -> Exception:
    said = done.stdout.decode(errors="replace")
    if done.returncode == REFUSED:
        return ProgramError(f"{name}: {said}")
    if done.returncode == UNUSABLE:
        return UsageError(said)
    log.error("compiling %s: %s", name, done.stderr.decode(errors="replace").strip())
    if done.returncode > 0:  # a bug of ours, or a version of us that is just being replaced
        return UsageError(f"{name}: the server's compiler does not work; its log says why")
    if -done.returncode == signal.SIGXCPU:
        return ProgramError(f"{name}: compiling it takes more than {task.seconds} s of a processor")
    return ProgramError(
        f"{name}: compiling it was ended by signal {-done.returncode}; it may take "
        f"{task.memory // _MIB} MiB of memory"
    )


async def _kill(process: trio.Process) -> None:
    process.kill()


def _environment() -> dict[str, str]:
    """Ours, with a way to this very package, and a part of the processors."""
    places = [
        str(Path(pie.__file__).parents[1]),
        *os.environ.get("PYTHONPATH", "").split(os.pathsep),
    ]
    threads = max(1, min(_MOST_THREADS, (os.cpu_count() or 1) // 2))
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        "RAYON_NUM_THREADS": str(threads),
    }
