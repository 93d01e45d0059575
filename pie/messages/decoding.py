"""Consecutive passes of one sequence that the scheduler chains by itself (contract X10)."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from pie.ids import InstanceId, Priority, QueueId
from pie.mailbox import Ask, Reply
from pie.signals import Signal, Watcher

from .forward import ForwardPass


class TokenFeed(Signal):
    """The tokens of a decoding in the order in which they were drawn; as a guest's pollable, ready
    while some of them have not been taken, and from its end on.

    Whoever waits for a token after which a pass follows is nudged, and does not count as moving:
    its next pass is there.
    """

    __slots__ = ("on_watch", "taken", "tokens", "watched")

    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[int] = []
        self.taken = 0
        """How many of them the guest has."""
        self.watched = False
        """Whether anybody has looked for single tokens: not who waits for the end alone."""
        self.on_watch: Callable[[], None] | None = None
        """Called when somebody begins to."""

    def watch(self) -> None:
        """Somebody looks for tokens as they come."""
        if not self.watched:
            self.watched = True
            if self.on_watch is not None:
                self.on_watch()

    def add(self, waiter: Watcher) -> None:
        self.watch()
        super().add(waiter)

    def nudge(self) -> None:
        """There are new tokens, unless they have been taken with those before them."""
        if self.taken < len(self.tokens):
            super().nudge()


class DecodingEnd(Reply[None]):
    """The answer to a decoding, which comes when it is over, with the tokens before it."""

    __slots__ = ("feed",)

    def __init__(self) -> None:
        super().__init__()
        self.feed = TokenFeed()

    def set(self) -> None:
        super().set()
        self.feed.set()


@attrs.define(eq=False)
class SubmitDecoding(Ask[None]):
    """Run `work`, which samples one token at its last input, and then up to `steps - 1` passes of
    one input each: the token drawn before, at the next position and slot, with the same sampler,
    adapter and mask, the new slot visible. Equal to as many passes submitted one by one.

    It ends early after a token of `stops` and at the first pass that fails, and is answered at
    its end. The pages of `work` have room for all of it.
    """

    instance: InstanceId
    queue: QueueId
    priority: Priority
    work: ForwardPass
    steps: int
    stops: frozenset[int]
    reply: DecodingEnd = attrs.field(factory=DecodingEnd, kw_only=True, repr=False)

    @property
    def feed(self) -> TokenFeed:
        return self.reply.feed


@attrs.define(eq=False)
class CancelDecoding:
    """End a decoding: it counts as the passes whose tokens were `taken`, and no more.

    After its end this still holds as long as nothing was submitted behind it on its queue.
    """

    decoding: SubmitDecoding
    taken: int
