"""`inferlet:core/forward`: building a forward pass, executing it, reading its results."""

from __future__ import annotations

import attrs

from pie.errors import GuestError, LimitExceeded
from pie.guest.host import HostInterface, Wait
from pie.guest.instance import Instance
from pie.ids import Pointer
from pie.mailbox import Reply
from pie.messages import PassResult, SubmitPass

from .builder import PassBuilder, freeze
from .handles import Queue
from .outputs import outputs

forward = HostInterface("inferlet:core/forward")
forward.include(outputs)

MAX_POSITION = 2**31 - 1
"""Positions cross to the model as int32."""


@attrs.define(eq=False)
class PassResultHandle:
    """The results of a submitted pass; each kind is taken once (contract F6, X5)."""

    instance: Instance
    reply: Reply[PassResult]
    tokens: int
    """Entries that are counted against the guest's limit, until they are taken."""
    distributions: int

    def take_tokens(self) -> list[int] | None:
        """None while pending; raises what the pass failed with."""
        if not self.reply.ready():
            return None
        result = self.reply.take()
        taken = result.tokens.copy()
        result.tokens.clear()
        self.instance.result_entries -= self.tokens
        self.tokens = 0
        return taken

    def take_distributions(self) -> list[tuple[list[int], list[float]]] | None:
        """None while pending; raises what the pass failed with."""
        if not self.reply.ready():
            return None
        result = self.reply.take()
        taken = result.distributions.copy()
        result.distributions.clear()
        self.instance.result_entries -= self.distributions
        self.distributions = 0
        return taken

    def close(self) -> None:
        self.instance.result_entries -= self.tokens + self.distributions
        self.tokens = self.distributions = 0


@forward.function("create-forward-pass")
def create_forward_pass(instance: Instance, queue: Queue) -> PassBuilder:
    return PassBuilder(queue)


# ----------------------------------------------------------------------- inputs


@forward.function("input-tokens")
def input_tokens(
    instance: Instance, builder: PassBuilder, tokens: list[int], positions: list[int]
) -> None:
    vocabulary = builder.queue.service.info.vocabulary
    if tokens and max(tokens) >= vocabulary:
        raise GuestError(
            f"input-tokens: token id {max(tokens)} is not below the model's {vocabulary} (F1)"
        )
    _append_inputs(instance, builder, tokens, positions, "input-tokens")


@forward.function("input-embeddings")
def input_embeddings(
    instance: Instance, builder: PassBuilder, emb_ptrs: list[int], positions: list[int]
) -> None:
    encoded = [-1 - pointer for pointer in emb_ptrs]
    _append_inputs(instance, builder, encoded, positions, "input-embeddings")


def _append_inputs(
    instance: Instance, builder: PassBuilder, inputs: list[int], positions: list[int], call: str
) -> None:
    info = builder.queue.service.info
    if len(inputs) != len(positions):
        raise GuestError(f"{call}: {len(inputs)} inputs but {len(positions)} positions (F1)")
    if positions and max(positions) > MAX_POSITION:
        raise GuestError(f"{call}: position {max(positions)} is above {MAX_POSITION} (K3)")
    limit = instance.limits.max_pass_tokens or info.context_length
    total = len(builder.inputs) + len(inputs)
    if total > limit:
        raise GuestError(
            f"{call}: max batch tokens exceeded: {total} inputs in the pass, the limit is {limit}"
        )
    if builder.inputs:
        builder.inputs += inputs
        builder.positions += positions
    else:
        builder.inputs, builder.positions = list(inputs), list(positions)


@forward.function("attention-mask")
def attention_mask(instance: Instance, builder: PassBuilder, mask: list[list[int]]) -> None:
    builder.masks = mask


@forward.function("kv-cache")
def kv_cache(
    instance: Instance, builder: PassBuilder, kv_page_ptrs: list[Pointer], last_kv_page_len: int
) -> None:
    pages = builder.queue.service.info.pages
    if len(kv_page_ptrs) > pages:
        raise GuestError(
            f"kv-cache: {len(kv_page_ptrs)} pages are more than the {pages} of the model (K1)"
        )
    builder.pages = kv_page_ptrs
    builder.last_page_len = last_kv_page_len


# ---------------------------------------------------------------------- execute


@forward.function("[method]forward-pass.execute", suspends=True)
def execute(instance: Instance, builder: PassBuilder) -> PassResultHandle | Wait | None:
    """Check everything, submit, and return at once (contract F5)."""
    if builder.executed:
        raise GuestError("execute: this pass has been executed already (F5)")
    builder.executed = True
    if not builder.inputs:
        if builder.outputs or builder.stored:
            raise GuestError("execute: outputs are asked of a pass without inputs (K1)")
        return None
    if has_room(instance):
        return _submit(instance, builder)
    return Wait(tuple(instance.in_flight), lambda: _submit(instance, builder))


def has_room(instance: Instance) -> bool:
    """Whether one more pass may be in flight; forgets the finished ones."""
    line = instance.in_flight
    while line and line[0].ready():
        line.popleft()
    if len(line) >= instance.limits.max_passes_in_flight:
        unfinished = [reply for reply in line if not reply.ready()]
        line.clear()
        line.extend(unfinished)
    return len(line) < instance.limits.max_passes_in_flight


def check_entries(instance: Instance, more: int, call: str) -> int:
    """What is asked for and not taken, with `more`; LimitExceeded if that is too much."""
    total, limit = instance.result_entries + more, instance.limits.max_result_entries
    if total > limit:
        raise LimitExceeded(
            f"{call}: {total} tokens and distribution entries are asked for and not taken, "
            f"the limit is {limit}"
        )
    return total


def _submit(instance: Instance, builder: PassBuilder) -> PassResultHandle | None:
    # Only now, after waiting for room: another strand of a native guest may have freed its pages.
    work, queue = freeze(instance, builder), builder.queue
    total = check_entries(instance, builder.sampled + builder.ranked, "execute")
    message = SubmitPass(instance.id, queue.number, queue.priority, work)
    instance.in_flight.append(message.reply)
    instance.mover.submitted = True
    queue.service.tell(message)
    if not work.outputs:
        return None
    instance.result_entries = total
    return PassResultHandle(instance, message.reply, builder.sampled, builder.ranked)


# ---------------------------------------------------------------------- results


@forward.function("[method]forward-pass-result.pollable")
def pollable(instance: Instance, result: PassResultHandle) -> Reply[PassResult]:
    return result.reply


@forward.function("[method]forward-pass-result.get-tokens")
def get_tokens(instance: Instance, result: PassResultHandle) -> list[int] | None:
    return result.take_tokens()


@forward.function("[method]forward-pass-result.get-distributions")
def get_distributions(
    instance: Instance, result: PassResultHandle
) -> list[tuple[list[int], list[float]]] | None:
    return result.take_distributions()
