"""Several steps of a device in one call: each row's token is its input in the next step.

What lies between two steps otherwise, from the device's thread to the guest and back, is paid once
for all of them (docs/decisions/0021).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import numpy as np
from numpy.typing import NDArray

from .batch import Batch, BatchResult, Floats, Ints
from .signals import Signal

DONE, OVER, HALT, ANNOUNCE = 0, 8, 16, 24
"""Places of the words in `MultiStep.state`, a cache line each."""


@attrs.define(eq=False, kw_only=True)
class MultiStep:
    """A batch, and up to `steps - 1` steps that follow it with the same rows.

    Each pass of `batch` is one row that samples one token, in the order of the rows; nothing is
    masked, embedded, stored or ranked. In a following step a row has the token it drew before, one
    position and one slot further, with the same sampler and adapter; `batch.pages` has room for
    all of them. What the batch clears and copies is done once.

    It ends after `steps`, or before that after a step in which a row drew one of its stop tokens or
    had logits that are not finite, or which ended after `halt` was called. The device writes
    what it draws while the loop reads: rows below `done` do not change any more.
    """

    batch: Batch
    uniform: Floats
    """[steps, passes] random numbers; the first row is that of `batch`."""
    stops: Ints
    """The stop tokens of all passes."""
    stop_starts: Ints
    """[passes + 1] first of each pass in `stops`."""
    tokens: Ints = attrs.field(init=False)
    """[steps, passes] what was drawn."""
    finite: NDArray[np.bool_] = attrs.field(init=False)
    """[steps, passes] False where the logits were not finite: the token means nothing."""
    state: NDArray[np.int64] = attrs.field(init=False, repr=False)
    """Shared with the device. At DONE how many steps are done; at the others 1 or 0. At OVER, which
    the device writes before DONE, whether no step follows the last of these."""
    progress: Signal = attrs.field(factory=Signal, init=False, repr=False)
    """Set by the device, on the loop, after each step while `announce` holds."""

    def __attrs_post_init__(self) -> None:
        self.tokens = np.zeros(self.uniform.shape, np.int32)
        self.finite = np.zeros(self.uniform.shape, np.bool_)
        self.state = np.zeros(4 * 8, np.int64)

    @property
    def steps(self) -> int:
        """How many it is at most."""
        return len(self.uniform)

    @property
    def done(self) -> int:
        """How many are done."""
        return int(self.state[DONE])

    @property
    def followed(self) -> int:
        """How many of those that are done have been followed by another."""
        done = self.done  # first: what is read then belongs to this step or to a later one
        return max(0, done - int(self.state[OVER]))

    def halt(self) -> None:
        """Let the step that runs be the last."""
        self.state[HALT] = 1

    @property
    def halted(self) -> bool:
        return bool(self.state[HALT])

    def announce(self) -> None:
        """Somebody wants to know of each step from now on."""
        self.state[ANNOUNCE] = 1

    @property
    def announced(self) -> bool:
        return bool(self.state[ANNOUNCE])

    def batch_of(self, step: int) -> Batch:
        """What step `step` runs, all before it being done."""
        if step == 0:
            return self.batch
        first = self.batch
        return attrs.evolve(
            first,
            tokens=self.tokens[step - 1],
            positions=first.positions + np.int32(step),
            lengths=first.lengths + np.int32(step),
            uniform=self.uniform[step],
            cleared_pages=first.cleared_pages[:0],
            cleared_embeddings=first.cleared_embeddings[:0],
            copy_sources=first.copy_sources[:0],
            copy_targets=first.copy_targets[:0],
        )

    def finish(self, tokens: Ints, finite: NDArray[np.bool_]) -> bool:
        """Note what the next step drew: True if another follows. For devices written in Python."""
        step = self.done
        self.tokens[step], self.finite[step] = tokens, finite
        over = step + 1 == self.steps or self.halted or not self.finite[step].all()
        self.state[OVER] = over or self._stopped(step)
        self.state[DONE] = step + 1
        return not self.state[OVER]

    def _stopped(self, step: int) -> bool:
        """Whether a row drew one of its stop tokens."""
        ends = self.stop_starts.tolist()
        return any(
            token in self.stops[start:end]
            for token, start, end in zip(self.tokens[step], ends[:-1], ends[1:], strict=True)
        )


async def step_by_step(run: Callable[[Batch], Awaitable[BatchResult]], steps: MultiStep) -> None:
    """Make `steps` with a device that knows single ones, on the loop."""
    follows = True
    while follows:
        result = await run(steps.batch_of(steps.done))
        follows = steps.finish(result.tokens, result.sampled_finite)
        if steps.announced:
            steps.progress.set()
