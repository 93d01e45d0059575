"""A pass that goes on by itself: each token it draws is the input of its next step."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from pie.errors import PassFailed
from pie.messages import ForwardPass, Sample, SubmitDecoding
from pie.probes import sometimes

from .passes import PendingPass


@attrs.define(eq=False, kw_only=True)
class PendingDecoding(PendingPass):
    """A submitted decoding. To pages, hazards and the planner it is one pass that is not over: what
    it may come to write is written by it, so nothing is checked or looked up again for a token.
    """

    continues = True

    token: SubmitDecoding
    first_number: int = 0
    """Number of its first pass in its queue."""
    taken: int | None = None
    """After a cancellation: how many of its tokens, and so of its passes, count."""
    drawn: int = 0
    """Tokens so far."""
    reach: int = attrs.field(init=False)
    """KV length after the last pass that it may have."""
    _follow: tuple[Sample] | None = attrs.field(default=None, init=False)
    """The output of the passes after the first."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.reach = self.work.length + self.token.steps - 1

    @property
    def end(self) -> int:
        return self.reach

    @property
    def count(self) -> int:
        """How many passes of its queue it is, now that it is over: one that failed is one."""
        if self.taken is not None:
            return self.taken
        return self.drawn + (self.error is not None)

    def excuse(self) -> None:
        """After a cancellation, a pass that does not count cannot fail."""
        if self.taken is not None and isinstance(self.error, PassFailed):
            sometimes("a pass fails that does not count")
            self.error = None

    @property
    def left(self) -> int:
        """Tokens that it may still draw."""
        return self.token.steps - self.drawn

    @property
    def wanted(self) -> bool:
        """Whether the tokens that it draws count: it has not been cancelled, and has not failed."""
        return self.taken is None and self.error is None

    def draw(self, tokens: Sequence[int]) -> bool:
        """As many passes of it have drawn `tokens`, a stop token at most at the end. True if a pass
        follows: whoever reads is to be nudged.
        """
        if self.taken is not None:
            return False
        self.drawn += len(tokens)
        self.token.feed.tokens.extend(tokens)
        return not (self.left == 0 or tokens[-1] in self.token.stops)

    def proceed(self, token: int, passes: int, sequence: int, now: float) -> None:
        """Become the pass behind as many `passes`, the last of which drew `token`: submitted now,
        to those who compare.
        """
        work = self.work
        self.work = ForwardPass(
            inputs=(token,),
            positions=(work.positions[-1] + passes,),
            pages=work.pages,
            length=work.length + passes,
            masks=_next_mask(work.masks, passes),
            outputs=self._outputs(),
            adapter=work.adapter,
            noise_seed=work.noise_seed,
        )
        self.inputs = self.remaining = 1
        self.results = [None]
        self.number += passes
        self.sequence = sequence
        self.submitted_at = now

    def _outputs(self) -> tuple[Sample]:
        if self._follow is None:
            (output,) = self.work.outputs
            assert isinstance(output, Sample), "a decoding samples"
            self._follow = (attrs.evolve(output, index=0),)
        return self._follow


def _next_mask(
    masks: tuple[tuple[int, ...], ...] | None, slots: int
) -> tuple[tuple[int, ...], ...] | None:
    """The last row, and the new slots attended."""
    if masks is None or not masks[-1]:
        return None
    row = masks[-1]
    if len(row) % 2:  # runs alternate, and the first attends: so does the last
        return ((*row[:-1], row[-1] + slots),)
    return ((*row, slots),)
