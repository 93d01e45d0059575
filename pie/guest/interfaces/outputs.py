"""What a forward pass is asked for: sampled tokens, distributions, stored vectors (F3, F4, S1)."""

from __future__ import annotations

import math
from functools import lru_cache

from pie.errors import GuestError, LimitExceeded
from pie.guest.host import HostInterface
from pie.guest.instance import Instance
from pie.ids import Pointer
from pie.messages import Rank, Sample

from .builder import PassBuilder

outputs = HostInterface("inferlet:core/forward")

DEFAULT_RANKED = 32
"""Entries of a distribution when `top-k` is none (contract S2)."""


@outputs.function("output-embeddings")
def output_embeddings(
    instance: Instance, builder: PassBuilder, emb_ptrs: list[Pointer], indices: list[int]
) -> None:
    if len(emb_ptrs) != len(indices):
        raise GuestError(
            f"output-embeddings: {len(emb_ptrs)} slots but {len(indices)} indices (F4)"
        )
    _check_slots(instance, len(builder.stored) + len(indices), "output-embeddings")
    builder.stored += zip(indices, emb_ptrs, strict=True)
    builder.furthest = max(builder.furthest, max(indices, default=-1))


@outputs.function("output-distributions")
def output_distributions(
    instance: Instance,
    builder: PassBuilder,
    indices: list[int],
    temperature: float,
    top_k: int | None,
) -> None:
    _check_temperature(temperature, "output-distributions")
    vocabulary = builder.queue.service.info.vocabulary
    k = min(DEFAULT_RANKED if top_k is None else top_k, vocabulary)
    limit = instance.limits.max_dist_size
    if limit is not None and k > limit:
        raise GuestError(f"output-distributions: {k} entries asked, the limit is {limit} (S2)")
    _check_slots(instance, len(builder.outputs) + len(indices), "output-distributions")
    builder.outputs += [Rank(index, temperature, k) for index in indices]
    builder.ranked += k * len(indices)
    builder.furthest = max(builder.furthest, max(indices, default=-1))


@outputs.function("output-tokens")
def output_tokens(
    instance: Instance, builder: PassBuilder, indices: list[int], temperature: float
) -> None:
    _sample(instance, builder, "output-tokens", indices, temperature)


@outputs.function("output-tokens-top-k")
def output_tokens_top_k(
    instance: Instance, builder: PassBuilder, indices: list[int], temperature: float, top_k: int
) -> None:
    _sample(instance, builder, "output-tokens-top-k", indices, temperature, top_k=top_k)


@outputs.function("output-tokens-top-p")
def output_tokens_top_p(
    instance: Instance, builder: PassBuilder, indices: list[int], temperature: float, top_p: float
) -> None:
    _sample(instance, builder, "output-tokens-top-p", indices, temperature, top_p=top_p)


@outputs.function("output-tokens-min-p")
def output_tokens_min_p(
    instance: Instance, builder: PassBuilder, indices: list[int], temperature: float, min_p: float
) -> None:
    _sample(instance, builder, "output-tokens-min-p", indices, temperature, min_p=min_p)


@outputs.function("output-tokens-top-k-top-p")
def output_tokens_top_k_top_p(
    instance: Instance,
    builder: PassBuilder,
    indices: list[int],
    temperature: float,
    top_k: int,
    top_p: float,
) -> None:
    _sample(
        instance,
        builder,
        "output-tokens-top-k-top-p",
        indices,
        temperature,
        top_k=top_k,
        top_p=top_p,
    )


def _check_slots(instance: Instance, count: int, call: str) -> None:
    limit = instance.limits.max_pass_outputs
    if count > limit:
        raise LimitExceeded(f"{call}: {count} output slots in the pass, the limit is {limit}")


def _check_temperature(temperature: float, call: str) -> None:
    if not math.isfinite(temperature) or temperature < 0:
        raise GuestError(f"{call}: temperature {temperature} is not finite and >= 0 (S1)")


_slot = lru_cache(maxsize=4096)(Sample)
"""Guests ask for the same few again and again."""


def _sample(
    instance: Instance,
    builder: PassBuilder,
    call: str,
    indices: list[int],
    temperature: float,
    *,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> None:
    """Append sampled slots, with the special values of S1 brought to their plain form."""
    _check_slots(instance, len(builder.outputs) + len(indices), call)
    _check_temperature(temperature, call)
    if top_p != 1.0 or min_p:
        temperature, top_p, min_p = _plain_filters(call, temperature, top_p, min_p)
    if top_k >= builder.queue.service.info.vocabulary:
        top_k = 0
    for index in indices:
        builder.outputs.append(_slot(index, temperature, top_k, top_p, min_p))
        if index > builder.furthest:
            builder.furthest = index
    builder.sampled += len(indices)


def _plain_filters(
    call: str, temperature: float, top_p: float, min_p: float
) -> tuple[float, float, float]:
    for name, value in (("top-p", top_p), ("min-p", min_p)):
        if not math.isfinite(value):
            raise GuestError(f"{call}: {name} {value} is not finite (S1)")
    if top_p <= 0 or min_p > 1:
        temperature = 0.0  # only the most probable token is left
    return temperature, min(top_p, 1.0), max(min_p, 0.0)
