"""How long a step takes: `a + b * rows + c * KV slots`, fitted on the last steps.

Exponentially weighted least squares on the normal equations, with a weak prior so that the
first steps do not swing it. Used to bound how long gathering a batch may wait.
"""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray

KEEP = 0.95
"""Weight that is left of a step after the next one: about the last twenty count."""
PRIOR = (1e-3, 1e-5, 0.0)
"""Seconds per step, row and KV slot before anything was measured."""
SCALE = (1.0, 64.0, 4096.0)
"""Typical sizes, so that the equations are well conditioned."""


_SCALE = np.array(SCALE)
_PRIOR_LEFT = np.eye(3) * 1e-2
_PRIOR_RIGHT = _PRIOR_LEFT @ (np.array(PRIOR) * _SCALE)


@attrs.define(eq=False)
class StepTime:
    """The running fit; negative coefficients are taken as 0."""

    _left: NDArray[np.float64] = attrs.field(factory=_PRIOR_LEFT.copy)
    _right: NDArray[np.float64] = attrs.field(factory=_PRIOR_RIGHT.copy)
    _coefficients: tuple[float, float, float] = PRIOR

    def learn(self, rows: int, slots: int, seconds: float) -> None:
        """A step of `rows` rows over `slots` KV slots took `seconds`."""
        x = np.array((1.0, rows / SCALE[1], slots / SCALE[2]))
        self._left = KEEP * self._left + np.outer(x, x)
        self._right = KEEP * self._right + x * seconds
        solved = np.linalg.solve(self._left + _PRIOR_LEFT, self._right + _PRIOR_RIGHT) / _SCALE
        a, b, c = np.maximum(solved, 0.0).tolist()
        self._coefficients = (a, b, c)

    def seconds(self, rows: int, slots: int) -> float:
        """Predicted duration of a step."""
        a, b, c = self._coefficients
        return a + b * rows + c * slots

    def gain_of_waiting(self, movers: int, backlog: int) -> float:
        """What a batch may lose by waiting for `movers` guests of about one row each.

        The time of the extra step they would need, times their share of its rows; `backlog` rows
        do not fit in the present batch and would be in that step anyway.
        """
        rows = movers + backlog
        return self.seconds(rows, 0) * movers / rows if rows else 0.0
