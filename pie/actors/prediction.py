"""How long a step takes, fitted on the last ones.

    seconds = a + b * passes + c * (rows - passes) + d * KV slots

Recursive least squares that forgets only in the direction of each new step (L. Cao and H.
Schwartz, "A directional forgetting algorithm based on the decomposition of the information
matrix", Automatica 36, 2000). Steps of a steady load all look alike; plain exponential
forgetting would lose what earlier, different steps told about the overhead `a`, on which the
start of a batch depends (`dispatch.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import mul, truediv
from typing import TypeAlias

import attrs

Vector: TypeAlias = Sequence[float]
Matrix: TypeAlias = Sequence[Vector]
"""Of four rows at most: plain floats, since a call of NumPy costs more than the arithmetic, and a
step of a small batch hardly more than ten of them."""

KEEP = 0.9
"""Weight that is left of a step after the next one like it: about the last ten count."""
PRIOR = (1e-3, 1e-5, 1e-4, 0.0)
"""Seconds per step, pass, further row and KV slot before anything was measured. Rows are taken to
be dear, so that the first long pass beside short ones begins with a few of them."""
SCALE = (1.0, 64.0, 64.0, 65536.0)
"""Typical sizes, so that the equations are well conditioned."""
CONFIDENCE = 1e-2
"""Weight of the prior, in steps."""

_SIZE = range(len(SCALE))


def _prior_information() -> Matrix:
    return [[CONFIDENCE * (row == column) for column in _SIZE] for row in _SIZE]


@attrs.define(eq=False)
class StepTime:
    """The running fit, of coefficients that are not negative."""

    _information: Matrix = attrs.field(factory=_prior_information)
    _free: Vector = attrs.field(factory=lambda: list(map(mul, PRIOR, SCALE)))
    """The best fit, negative coefficients allowed; per typical size."""
    _fit: tuple[float, ...] = PRIOR

    def learn(self, passes: int, rows: int, slots: int, seconds: float) -> None:
        """A step of `passes` passes with `rows` rows over `slots` KV slots took `seconds`."""
        x = list(map(truediv, (1.0, passes, rows - passes, slots), SCALE))
        seen = [_dot(row, x) for row in self._information]
        forget = (1 - KEEP) / _dot(x, seen)
        self._information = [
            [info - forget * s * t + u * v for info, t, v in zip(row, seen, x, strict=True)]
            for row, s, u in zip(self._information, seen, x, strict=True)
        ]
        error = seconds - _dot(x, self._free)
        gain = _solved(self._information, x)
        self._free = [old + g * error for old, g in zip(self._free, gain, strict=True)]
        fit = self._free if min(self._free) >= 0 else self._bounded()
        self._fit = tuple(map(truediv, fit, SCALE))

    def _bounded(self) -> Vector:
        """The best fit without negative coefficients: those that would be are 0, the rest anew."""
        fit, info = list(self._free), self._information
        zero: set[int] = set()
        while negative := {i for i in _SIZE if fit[i] < 0}:
            zero |= negative
            free = [i for i in _SIZE if i not in zero]
            moved = [sum(info[i][j] * self._free[j] for j in zero) for i in free]
            change = _solved([[info[i][j] for j in free] for i in free], moved)
            fit = [0.0] * len(SCALE)
            for i, more in zip(free, change, strict=True):
                fit[i] = self._free[i] + more
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


def _dot(left: Vector, right: Vector) -> float:
    return float(sum(map(mul, left, right)))


def _solved(matrix: Matrix, right: Vector) -> Vector:
    """x of `matrix` x = `right`, by Gauss; the matrix is symmetric and positive definite, so no
    row needs another's place.
    """
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for at, row in enumerate(rows):
        for below in range(at + 1, len(rows)):
            factor = rows[below][at] / row[at]
            rows[below] = [b - factor * a for a, b in zip(row, rows[below], strict=True)]
    solution: list[float] = []
    for at in reversed(range(len(rows))):
        known = _dot(rows[at][at + 1 : -1], solution)
        solution.insert(0, (rows[at][-1] - known) / rows[at][at])
    return solution
