"""`decode` of `pie:ext/ext`: steps that the scheduler chains without the guest (contract X10)."""

from __future__ import annotations

import attrs

from pie.errors import GuestError
from pie.guest.host import HostInterface, Wait
from pie.guest.instance import Instance
from pie.ids import Pointer
from pie.mailbox import Reply
from pie.messages import (
    CancelDecoding,
    ForwardPass,
    ModelService,
    Sample,
    SubmitDecoding,
    TokenFeed,
)

from .builder import PassBuilder, freeze
from .forward import MAX_POSITION, check_entries, has_room
from .pointers import check_held

decodings = HostInterface("pie:ext/ext")


@attrs.define(eq=False)
class Decoding:
    """A submitted decoding whose tokens a guest takes."""

    instance: Instance
    service: ModelService
    message: SubmitDecoding
    reserved: int
    """Tokens that are counted against the guest's limit, until they are taken."""
    cancelled: bool = False

    def get(self, limit: int) -> tuple[list[int], bool]:
        """The next tokens, and whether that is the end; raises what a pass failed with."""
        if self.cancelled:
            return [], True
        feed, reply = self.message.feed, self.message.reply
        tokens = feed.tokens[feed.taken : feed.taken + limit]
        feed.taken += len(tokens)
        self.instance.result_entries -= len(tokens)
        self.reserved -= len(tokens)
        over = reply.ready()
        if feed.taken < len(feed.tokens):
            return tokens, False
        if not over:
            feed.clear()
            feed.watch()
        elif not tokens:
            reply.take()
        return tokens, over and reply.error is None

    def cancel(self) -> None:
        """No further steps; those whose tokens are not taken do not count."""
        if not self.cancelled:
            self.cancelled = True
            self.instance.result_entries -= self.reserved
            feed = self.message.feed
            if not (self.message.reply.ready() and feed.taken == len(feed.tokens)):
                self.service.tell(CancelDecoding(self.message, feed.taken))

    def close(self) -> None:
        self.cancel()


@decodings.function("decode", suspends=True)
def decode(
    instance: Instance,
    builder: PassBuilder,
    steps: int,
    stop_tokens: list[int],
    growth: list[Pointer],
) -> Decoding | Wait:
    """Check everything, submit, and return at once, as `execute` does."""
    if builder.executed:
        raise GuestError("decode: this pass has been executed already (F5)")
    builder.executed = True
    _check(builder, steps, stop_tokens)
    if has_room(instance):
        return _submit(instance, builder, steps, stop_tokens, growth)
    return Wait(
        tuple(instance.in_flight), lambda: _submit(instance, builder, steps, stop_tokens, growth)
    )


@decodings.function("[method]decoding.pollable")
def pollable(instance: Instance, decoding: Decoding) -> TokenFeed:
    return decoding.message.feed


@decodings.function("[method]decoding.ended")
def ended(instance: Instance, decoding: Decoding) -> Reply[None]:
    return decoding.message.reply


@decodings.function("[method]decoding.get")
def get(instance: Instance, decoding: Decoding, limit: int) -> tuple[list[int], bool]:
    return decoding.get(limit)


@decodings.function("[method]decoding.next", suspends=True)
def next_tokens(instance: Instance, decoding: Decoding, limit: int) -> list[int] | Wait:
    feed = decoding.message.feed
    if feed.ready() or decoding.cancelled:
        return decoding.get(limit)[0]
    return Wait((feed,), lambda: decoding.get(limit)[0])


@decodings.function("[method]decoding.cancel")
def cancel(instance: Instance, decoding: Decoding) -> None:
    decoding.cancel()


def _check(builder: PassBuilder, steps: int, stop_tokens: list[int]) -> None:
    vocabulary, last = builder.queue.service.info.vocabulary, len(builder.inputs) - 1
    if steps == 0:
        raise GuestError("decode: 0 steps are asked for, it takes at least 1 (X10)")
    if not builder.inputs:
        raise GuestError("decode: the pass has no inputs (K1)")
    (output,) = builder.outputs if len(builder.outputs) == 1 else (None,)
    if not isinstance(output, Sample) or output.index != last or builder.stored:
        raise GuestError(
            f"decode: the pass has to ask for one token, after its last input {last}, and nothing "
            "else (X10)"
        )
    if stop_tokens and max(stop_tokens) >= vocabulary:
        raise GuestError(
            f"decode: stop token {max(stop_tokens)} is not below the model's {vocabulary} (X10)"
        )
    if builder.positions[-1] + steps - 1 > MAX_POSITION:
        raise GuestError(
            f"decode: {steps} steps from position {builder.positions[-1]} go above {MAX_POSITION} "
            "(K3)"
        )


def _submit(
    instance: Instance,
    builder: PassBuilder,
    steps: int,
    stop_tokens: list[int],
    growth: list[Pointer],
) -> Decoding:
    queue = builder.queue
    first = freeze(instance, builder, "decode")
    work = attrs.evolve(first, pages=_pages(builder, first, steps, growth))
    total = check_entries(instance, steps, "decode")
    message = SubmitDecoding(
        instance.id, queue.number, queue.priority, work, steps, frozenset(stop_tokens)
    )
    instance.in_flight.append(message.reply)
    instance.mover.submitted = True
    queue.service.tell(message)
    instance.result_entries = total
    return Decoding(instance, queue.service, message, steps)


def _pages(
    builder: PassBuilder, first: ForwardPass, steps: int, growth: list[Pointer]
) -> tuple[Pointer, ...]:
    """Those of the pass and of its growth that the steps need."""
    check_held(builder.queue.pages, growth, "decode")
    size = builder.queue.service.info.page_size
    pages = (*first.pages, *growth)
    end = first.length + steps - 1
    if end > len(pages) * size:
        raise GuestError(
            f"decode: {steps} steps end at {end} KV slots, {len(first.pages)} pages and "
            f"{len(growth)} of growth have {len(pages) * size} (X10)"
        )
    pages = pages[: -(-end // size)]
    written = pages[(first.length - len(first.inputs)) // size :]
    if growth and len(set(pages)) != len(pages):
        for pointer in written:
            if pages.count(pointer) > 1:
                raise GuestError(f"decode: page {pointer} is written and listed twice (K2)")
    return pages
