"""The steps that follow the first one of a call, as the plan has them."""

from __future__ import annotations

import attrs
import numpy as np

from pie.batch import Floats, Ints
from pie.kernels.cpu.arrays import address
from pie.multistep import ANNOUNCE, DONE, HALT, OVER, MultiStep

from ..config import PAGE_SIZE

MOST_STEPS = 64
"""In one call: what lies between two calls is a few percent of so many of the smallest steps."""

_LAST_POSITION = np.iinfo(np.int32).max


@attrs.frozen(eq=False)
class Following:
    """Holds all that its addresses point to."""

    _steps: MultiStep
    _uniforms: Floats
    """[steps - 1, passes]"""
    _stops: Ints
    _stop_starts: Ints

    @classmethod
    def of(cls, steps: MultiStep) -> Following:
        """ValueError if the steps are not sound, the first one apart."""
        if reason := _complaint(steps):
            raise ValueError(f"several steps in one call are not sound: {reason}")
        uniforms = np.ascontiguousarray(steps.uniform[1:], np.float32)
        stops = np.ascontiguousarray(steps.stops, np.int32)
        return cls(steps, uniforms, stops, np.ascontiguousarray(steps.stop_starts, np.int32))

    def plan(self) -> dict[str, int]:
        """Fields of the plan; `done` apart they mean nothing to a single step."""
        state = address(self._steps.state)
        return {
            "done": state + 8 * DONE,
            "over": state + 8 * OVER,
            "halt": state + 8 * HALT,
            "announce": state + 8 * ANNOUNCE,
            "following": self._steps.steps - 1,
            "uniforms": address(self._uniforms),
            "stops": address(self._stops),
            "stop_starts": address(self._stop_starts),
        }


def _complaint(steps: MultiStep) -> str:
    """What is wrong, in one line; empty if nothing is."""
    batch, uniform, starts = steps.batch, steps.uniform, steps.stop_starts
    passes = batch.passes
    each = np.arange(passes + 1)
    if not 1 <= len(uniform) <= MOST_STEPS or steps.done:
        return f"{len(uniform)} steps, {steps.done} of them done, of 1 to {MOST_STEPS}"
    if not passes or not np.array_equal(batch.row_starts, each):
        return "a pass is not one row"
    if not np.array_equal(batch.sampled_rows, each[:-1]):
        return "the rows do not sample one token each, in their order"
    others = batch.masked_rows, batch.embedding_rows, batch.stored_rows, batch.ranked_rows
    if any(len(rows) for rows in others):
        return "a row is masked, embedded, stored or ranked"
    if uniform.shape[1:] != (passes,) or not np.array_equal(uniform[0], batch.uniform):
        return f"random numbers of shape {uniform.shape} do not fit {passes} passes"
    ends = starts.shape == each.shape and (starts[0], starts[-1]) == (0, len(steps.stops))
    if steps.stops.ndim != 1 or not ends or (np.diff(starts) < 0).any():
        return f"{len(steps.stops)} stop tokens do not fit {passes} passes"
    return _too_far(steps)


def _too_far(steps: MultiStep) -> str:
    """What is wrong with where the last step is; empty if nothing is."""
    batch, more = steps.batch, steps.steps - 1
    if len(batch.page_starts) != batch.passes + 1 or len(batch.positions) != batch.passes:
        return "the arrays of its batch do not fit each other"
    room = np.diff(batch.page_starts.astype(np.int64)) * PAGE_SIZE
    short = np.flatnonzero(batch.lengths.astype(np.int64) + more > room)
    if len(short):
        i = int(short[0])
        return f"pass {i} of length {batch.lengths[i]} and {more} more has {room[i]} slots"
    if int(batch.positions.max()) + more > _LAST_POSITION:
        return f"positions beyond {_LAST_POSITION}"
    return ""
