"""The one place that makes Trio's order of tasks a matter of a seed, for simulated runs.

Trio shuffles the tasks that are ready, so that no program relies on their order. With its switch
for deterministic scheduling on, the shuffle draws from a seeded stream: the same seed gives the
same order in every process. A server never does this.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import trio
from trio.abc import Instrument
from trio.testing import MockClock

T = TypeVar("T")

_trio: Any = trio._core._run  # the switch has no public name
_SWITCH, _STREAM = "_ALLOW_DETERMINISTIC_SCHEDULING", "_r"


@contextmanager
def task_order(seed: int) -> Iterator[None]:
    """Runs of Trio begun in here order their tasks by `seed`.

    RuntimeError if this version of Trio has no such switch. Not for two threads at once: the
    switch is the process's.
    """
    if not (hasattr(_trio, _SWITCH) and hasattr(_trio, _STREAM)):
        raise RuntimeError(f"trio {trio.__version__} cannot schedule deterministically")
    before, stream = getattr(_trio, _SWITCH), getattr(_trio, _STREAM)
    state = stream.getstate()
    setattr(_trio, _SWITCH, True)
    stream.seed(seed)
    try:
        yield
    finally:
        setattr(_trio, _SWITCH, before)
        stream.setstate(state)


def run_simulated(
    main: Callable[..., Awaitable[T]],
    *arguments: object,
    seed: int,
    instruments: Sequence[Instrument] = (),
) -> T:
    """Run `main` in virtual time, its tasks in the order of `seed`; what it returns.

    The clock jumps ahead whenever every task sleeps. Whatever uses a thread breaks the promise.
    """
    clock = MockClock(autojump_threshold=0)
    with task_order(seed):
        return trio.run(main, *arguments, clock=clock, instruments=instruments)
