"""Rotary position embedding: how fast each pair of dimensions of a head turns.

Su et al.: "RoFormer", 2021. Every way of stretching a context that does not depend on how long
the sequence is comes down to two things, and only these are kept: what each frequency is divided
by, and a factor on the turned queries and keys.
"""

from __future__ import annotations

import math

import attrs
import numpy as np
from numpy.typing import NDArray


@attrs.frozen(kw_only=True)
class Rope:
    """Pair i turns by `theta ** (-2 i / head_dim) / divisors[i]` per position."""

    theta: float = 10000.0
    divisors: tuple[float, ...] = ()
    """One for each pair; empty: all are 1."""
    factor: float = 1.0
    """Cosines and sines are multiplied by it (YaRN's attention factor)."""

    def frequencies(self, head_dim: int) -> NDArray[np.float32]:
        """What each pair turns by per position, [head_dim / 2].

        Every step is rounded to float32, as in training.
        """
        exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
        plain = np.float32(1.0) / np.power(np.float32(self.theta), exponent)
        return np.asarray(plain / np.array(self.divisors or (1.0,), np.float32), np.float32)


def linear(pairs: int, factor: float) -> tuple[float, ...]:
    """Divisors of position interpolation (Chen et al. 2023): everything turns slower."""
    return (factor,) * pairs


def llama3(
    pairs: int, theta: float, *, factor: float, low: float, high: float, context: float
) -> tuple[float, ...]:
    """Divisors of Llama 3.1: long waves are stretched, short ones kept, a ramp lies between.

    Waves that turn less than `low` times in the original `context` are stretched by `factor`,
    those that turn more than `high` times are kept.
    """
    divisors = []
    for pair in range(pairs):
        turns = context / (2 * math.pi * theta ** (pair / pairs))
        kept = min(max((turns - low) / (high - low), 0.0), 1.0)
        divisors.append(1.0 / ((1.0 - kept) / factor + kept))
    return tuple(divisors)


def yarn(
    pairs: int,
    theta: float,
    *,
    factor: float,
    context: float,
    fast: float = 32.0,
    slow: float = 1.0,
    whole: bool = True,
) -> tuple[float, ...]:
    """Divisors of YaRN (Peng et al. 2023, section 3.2): Llama 3's ramp, but linear in the pair.

    Pairs that turn more than `fast` times in the original `context` are kept, those that turn
    less than `slow` times are stretched by `factor`; `whole`: the ramp's ends are whole pairs.
    """

    def pair_that_turns(times: float) -> float:
        return pairs * math.log(context / (times * 2 * math.pi)) / math.log(theta)

    start, end = pair_that_turns(fast), pair_that_turns(slow)
    if whole:
        start, end = math.floor(start), math.ceil(end)
    start, end = max(start, 0), min(end, 2 * pairs - 1)
    width = end - start or 0.001
    kept = [1.0 - min(max((pair - start) / width, 0.0), 1.0) for pair in range(pairs)]
    return tuple(1.0 / ((1.0 - k) / factor + k) for k in kept)


def yarn_factor(factor: float, weight: float = 1.0) -> float:
    """The sharpness that YaRN adds to attention, `0.1 weight ln(factor) + 1`."""
    return 1.0 if factor <= 1.0 else 0.1 * weight * math.log(factor) + 1.0
