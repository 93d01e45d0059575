"""`inferlet:zo/evolve`: training an adapter by an evolution strategy (contract X8)."""

from __future__ import annotations

import math

from pie.batch import InitializeAdapter, UpdateAdapter
from pie.errors import GuestError
from pie.guest.host import HostInterface
from pie.guest.instance import Instance
from pie.ids import Pointer

from .adapter import submit, support_of
from .builder import PassBuilder
from .handles import Queue

zo = HostInterface("inferlet:zo/evolve")

MAX_POPULATION = 65_536
"""Scores of one update; each costs the noise of its seed."""


@zo.function("set-adapter-seed")
def set_adapter_seed(instance: Instance, builder: PassBuilder, seed: int) -> None:
    if builder.adapter is None:
        raise GuestError("set-adapter-seed: Adapter not set (X6)")
    builder.noise_seed = seed


@zo.function("initialize-adapter")
def initialize_adapter(
    instance: Instance,
    queue: Queue,
    adapter_ptr: Pointer,
    rank: int,
    alpha: float,
    population_size: int,
    mu_fraction: float,
    initial_sigma: float,
) -> None:
    call = "initialize-adapter"
    limit = support_of(queue, call).max_rank
    _check(1 <= rank <= limit, call, f"rank {rank} is not in 1..{limit}")
    _check(math.isfinite(alpha), call, f"alpha {alpha} is not finite")
    _check(
        1 <= population_size <= MAX_POPULATION,
        call,
        f"population-size {population_size} is not in 1..{MAX_POPULATION}",
    )
    _check(0 < mu_fraction <= 1, call, f"mu-fraction {mu_fraction} is not in (0, 1]")
    _check(0 < initial_sigma < math.inf, call, f"initial-sigma {initial_sigma} is not > 0")
    command = InitializeAdapter(-1, rank, alpha, population_size, mu_fraction, initial_sigma)
    submit(instance, queue, adapter_ptr, command, call)


@zo.function("update-adapter")
def update_adapter(
    instance: Instance,
    queue: Queue,
    adapter_ptr: Pointer,
    scores: list[float],
    seeds: list[int],
    max_sigma: float,
) -> None:
    call = "update-adapter"
    support_of(queue, call)
    _check(
        len(scores) == len(seeds) <= MAX_POPULATION,
        call,
        f"{len(scores)} scores but {len(seeds)} seeds, at most {MAX_POPULATION}",
    )
    _check(all(map(math.isfinite, scores)), call, "a score is not finite")
    _check(math.isfinite(max_sigma), call, f"max-sigma {max_sigma} is not finite")
    command = UpdateAdapter(-1, tuple(scores), tuple(seeds), max_sigma)
    submit(instance, queue, adapter_ptr, command, call)


def _check(good: bool, call: str, text: str) -> None:
    if not good:
        raise GuestError(f"{call}: {text} (X8)")
