"""How long a step takes, fitted on the last ones.

    seconds = a + b * passes + c * (rows - passes) + d * KV slots

Recursive least squares that forgets only in the direction of each new step (L. Cao and H.
Schwartz, "A directional forgetting algorithm based on the decomposition of the information
matrix", Automatica 36, 2000). Steps of a steady load all look alike; plain exponential
forgetting would lose what earlier, different steps told about the overhead `a`, on which the
start of a batch depends (`dispatch.py`).
"""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray

KEEP = 0.9
"""Weight that is left of a step after the next one like it: about the last ten count."""
PRIOR = (1e-3, 1e-5, 1e-4, 0.0)
"""Seconds per step, pass, further row and KV slot before anything was measured. Rows are taken to
be dear, so that the first long pass beside short ones begins with a few of them."""
SCALE = (1.0, 64.0, 64.0, 65536.0)
"""Typical sizes, so that the equations are well conditioned."""
CONFIDENCE = 1e-2
"""Weight of the prior, in steps."""

_SCALE = np.array(SCALE)


@attrs.define(eq=False)
class StepTime:
    """The running fit, of coefficients that are not negative."""

    _information: NDArray[np.float64] = attrs.field(factory=lambda: np.eye(4) * CONFIDENCE)
    _free: NDArray[np.float64] = attrs.field(factory=lambda: np.array(PRIOR) * _SCALE)
    """The best fit, negative coefficients allowed; per typical size."""
    _fit: tuple[float, float, float, float] = PRIOR

    def learn(self, passes: int, rows: int, slots: int, seconds: float) -> None:
        """A step of `passes` passes with `rows` rows over `slots` KV slots took `seconds`."""
        x = np.array((1.0, passes, rows - passes, slots)) / _SCALE
        seen = self._information @ x
        known = self._information - np.outer(seen, seen) * ((1 - KEEP) / (x @ seen))
        self._information = known + np.outer(x, x)
        error = seconds - x @ self._free
        self._free = self._free + np.linalg.solve(self._information, x) * error
        a, b, c, d = (self._bounded() / _SCALE).tolist()
        self._fit = a, b, c, d

    def _bounded(self) -> NDArray[np.float64]:
        """The best fit without negative coefficients: those that would be are 0, the rest anew."""
        fit, info = self._free, self._information
        zero = fit < 0
        while (fit < 0).any():
            zero |= fit < 0
            free = ~zero
            moved = info[np.ix_(free, zero)] @ self._free[zero]
            fit = np.zeros(4)
            fit[free] = self._free[free] + np.linalg.solve(info[np.ix_(free, free)], moved)
        return fit

    @property
    def overhead(self) -> float:
        """Predicted seconds of a step beside its rows."""
        return self._fit[0]

    @property
    def row_seconds(self) -> float:
        """Predicted seconds of one more row of a pass."""
        return self._fit[2]

    def seconds(self, passes: int, rows: int, slots: int) -> float:
        """Predicted duration of a step."""
        a, b, c, d = self._fit
        return a + b * passes + c * (rows - passes) + d * slots
