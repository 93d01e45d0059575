"""Several steps in one call: between two of them the interpreter has nothing to do.

After each step thread 0 tells that it is done and lays the next one out, while the others wait at
a barrier, the only one that is added; a single step has none. No thread reads the plan after the
last barrier but for `going`, which no one changes before all take part in a step again, and what
never changes.
"""

from __future__ import annotations

from typing import Any

from .jit import compiled, staged, together
from .maintenance import maintain
from .plan import bytes_at, floats_at, ints_at, plan_at
from .prepare import prepare
from .step import arrive, run_step
from .threads import (
    DOOR,
    ENDED,
    FIRST_DOOR,
    ONE,
    atomic_add,
    atomic_load,
    await_work,
    open_door,
    write,
)


@compiled
def _tell(p: Any) -> None:
    """Count the step, whose outputs are written, in the word at `done`; then ring the bell, but
    not for the last one, after which it rings in any case.
    """
    atomic_add(p.done, 1)
    if p.going != 0 and atomic_load(p.announce) != 0:
        write(p.bell, p.sync + ONE, 8)


@compiled
def _goes_on(p: Any) -> bool:
    """Whether a step follows; `stop_starts` int32 [rows + 1] is the first of each row's `stops`."""
    if p.following == 0 or atomic_load(p.halt) != 0:
        return False
    tokens, finite = ints_at(p.tokens_out, p.rows), bytes_at(p.finite, p.rows)
    starts = ints_at(p.stop_starts, p.rows + 1)
    stops = ints_at(p.stops, starts[p.rows])
    for r in range(p.rows):
        if finite[r] == 0:
            return False
        for i in range(starts[r], starts[r + 1]):
            if stops[i] == tokens[r]:
                return False
    return True


@compiled
def _feed_back(p: Any) -> None:
    """Each row's token becomes its input, one position and slot further; `rows` is `passes`."""
    tokens, drawn = ints_at(p.tokens, p.rows), ints_at(p.tokens_out, p.rows)
    positions, lengths = ints_at(p.positions, p.rows), ints_at(p.lengths, p.rows)
    uniform, following = floats_at(p.uniform, p.rows), floats_at(p.uniforms, p.rows)
    for r in range(p.rows):
        tokens[r] = drawn[r]
        positions[r] += 1
        lengths[r] += 1
        uniform[r] = following[r]
    p.uniforms += 4 * p.rows
    p.tokens_out += 4 * p.rows
    p.finite += p.rows


@staged
def advance(plan: int) -> None:
    """What lies between two steps: thread 0 alone does it. `going` says whether one follows.

    At most `following` do; `uniforms` float32 [following, rows] are their random numbers.
    """
    p = plan_at(plan, 1)[0]
    p.going = 0
    if _goes_on(p):
        p.following -= 1
        _feed_back(p)
        p.going = prepare(plan)
    if p.going == 0:
        atomic_add(p.over, 1)
    _tell(p)


@staged
def run_steps(thread: int, plan: int) -> None:
    """A step, or several; every thread calls it, with its number.

    Without rows, it is what a step does before it begins.
    """
    p = plan_at(plan, 1)[0]
    if thread == 0 and p.threads > 1:
        open_door(p.sync + DOOR)  # not by the caller, whom the first that wakes may displace
    several, rows, rings = p.done != 0, p.rows, p.rings
    met = maintain(thread, plan, p.met)
    met = run_step(thread, plan, met) if rows else arrive(p, met)
    while several:
        if thread == 0:
            advance(plan)
        met = arrive(p, met)
        several = p.going != 0
        if several:
            met = run_step(thread, plan, met)
    if thread == 0:
        atomic_add(p.sync + ENDED, 1)
        if rings != 0:
            write(p.bell, p.sync + ONE, 8)


@staged
def work(thread: int, plan: int) -> None:
    """A worker's life: take part in every step, until there are no more."""
    sync, seen = plan_at(plan, 1)[0].sync, 0
    door = sync + (FIRST_DOOR if thread == 0 else DOOR)
    while await_work(sync, door, seen):
        seen += 1
        run_steps(thread, plan)


together("steps", prepare, open_door, run_steps, work)  # all that Python calls for a step
