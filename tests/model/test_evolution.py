"""The evolution strategy: it improves, repeats itself, and its noise shares batches (X8)."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pie.batch import (
    ClearAdapter,
    DownloadAdapter,
    InitializeAdapter,
    UpdateAdapter,
    UploadAdapter,
    ints,
)
from pie.errors import PassFailed
from pie.model.config import LlamaConfig
from pie.model.evolution import (
    MAX_VARIANCE,
    MIN_SIGMA,
    MIN_VARIANCE,
    Rates,
    Strategy,
    recombination_weights,
)
from pie.model.runner import TorchRunner
from tests.model.adapters import adapted, lora_bytes, random_lora
from tests.model.support import Pass, make_batch
from tests.model.tiny import Tiny

TOKENS = [(31 * i + 7) % 250 for i in range(12)]
SETTINGS = InitializeAdapter(
    slot=0, rank=4, alpha=4.0, population_size=8, mu_fraction=0.5, initial_sigma=0.05
)
CONFIG = LlamaConfig(
    layers=2,
    hidden=6,
    heads=2,
    kv_heads=1,
    head_dim=4,
    ffn=4,
    vocabulary=8,
    context_length=16,
    norm_epsilon=1e-5,
    tied=True,
)
SMALL = attrs.evolve(SETTINGS, rank=1, population_size=16, initial_sigma=0.3)


def seeds_of(generation: int, count: int) -> tuple[int, ...]:
    return tuple((-1) ** i * (1000 * generation + i) for i in range(count))


def logits(runner: TorchRunner, passes: list[Pass], seeds: list[int | None], slot: int) -> Tensor:
    ends = np.cumsum([len(one.tokens) for one in passes]).astype(np.int32) - 1
    return runner.logits(adapted(passes, [slot] * len(passes), seeds), ends)


def prompts(count: int) -> list[Pass]:
    return [Pass(tokens=TOKENS, pages=[i]) for i in range(count)]


def test_a_strategy_pushes_one_logit_up(tiny: TorchRunner) -> None:
    """As a guest does it: noisy passes of a population in one batch, their scores, an update."""
    target = 17
    tiny.adapt(SETTINGS)

    def score(seeds: list[int | None]) -> list[float]:
        found = logits(tiny, prompts(len(seeds)), seeds, 0).log_softmax(-1)
        return found[:, target].tolist()

    before = score([None])[0]
    for generation in range(25):
        seeds = seeds_of(generation, 8)
        tiny.adapt(UpdateAdapter(0, tuple(score(list(seeds))), seeds, 0.0))
    assert score([None])[0] > before + 1.0


def test_a_strategy_finds_the_middle_of_a_bowl() -> None:
    """On the bare parameters, with axes of different length: variance and sigma adapt."""
    strategy = Strategy.start(SMALL, CONFIG, max_rank=4)
    size = strategy.mean.shape[1]
    goal = np.random.default_rng(3).standard_normal(strategy.mean.shape)
    weight = 100.0 ** (np.arange(size) / (size - 1))

    def score(seed: int | None) -> float:
        adapter = strategy.adapter(seed)
        rows = [
            np.concatenate(
                [f.ravel() for t in "qkv" for f in (adapter[i, t].down, adapter[i, t].up)]
            )
            for i in range(CONFIG.layers)
        ]
        return -float((weight * np.square(np.stack(rows) - goal)).sum())

    before = score(None)
    for generation in range(200):
        seeds = seeds_of(generation, 16)
        scores = tuple(score(seed) for seed in seeds)
        strategy = strategy.update(UpdateAdapter(0, scores, seeds, 0.0))
    assert score(None) > before / 1000
    assert strategy.sigma.max() < SMALL.initial_sigma


SEEDS = st.sampled_from([None, 0, 1, -1, 2**63 - 1, -(2**63)])


@settings(max_examples=20, deadline=None)
@given(members=st.lists(st.tuples(st.integers(-1, 2), SEEDS), min_size=1, max_size=8))
def test_company_changes_nothing(tiny: TorchRunner, members: list[tuple[int, int | None]]) -> None:
    """Slots 0 and 1 hold strategies, 2 an uploaded adapter, which has no noise."""
    tiny.adapt(SETTINGS)
    tiny.adapt(attrs.evolve(SETTINGS, slot=1, rank=3, initial_sigma=0.2))
    tiny.adapt(UploadAdapter(2, lora_bytes(random_lora(Tiny(), 1))))
    slots, seeds = zip(*members, strict=True)
    passes = [Pass(tokens=TOKENS[: 1 + i], pages=[i]) for i in range(len(members))]
    ends = np.cumsum([len(one.tokens) for one in passes]).astype(np.int32) - 1
    together = tiny.logits(adapted(passes, slots, seeds), ends)
    for i, one in enumerate(passes):
        alone = tiny.logits(adapted([one], slots[i : i + 1], seeds[i : i + 1]), ints([i]))
        assert torch.equal(together[i], alone[0]), members[i]


def test_each_seed_is_another_noise_and_none_is_the_mean(tiny: TorchRunner) -> None:
    tiny.adapt(SETTINGS)
    seeds = [None, 0, 1, -1, 2, 2**63 - 1, -(2**63)]
    rows = logits(tiny, prompts(len(seeds)), seeds, 0)
    assert len({tuple(row.tolist()) for row in rows}) == len(seeds)
    assert torch.equal(rows[0], logits(tiny, prompts(1), [None], -1)[0])  # up factors are zero


def test_noise_of_the_state_before_an_update_is_not_kept(tiny: TorchRunner) -> None:
    tiny.adapt(SETTINGS)
    before = logits(tiny, prompts(1), [5], 0)
    assert torch.equal(logits(tiny, prompts(1), [5], 0), before)
    tiny.adapt(UpdateAdapter(0, tuple(range(8)), seeds_of(0, 8), 0.0))
    assert not torch.equal(logits(tiny, prompts(1), [5], 0), before)
    tiny.adapt(SETTINGS)
    assert torch.equal(logits(tiny, prompts(1), [5], 0), before)


def test_a_search_that_overflows_fails_its_own_passes_only(tiny: TorchRunner) -> None:
    tiny.adapt(attrs.evolve(SETTINGS, initial_sigma=1e38, alpha=1e38))
    found = logits(tiny, prompts(2), [3, None], 0)
    assert not torch.isfinite(found[0]).any()
    assert torch.equal(found[1], logits(tiny, prompts(1), [None], -1)[0])
    tiny.adapt(UpdateAdapter(0, tuple(range(8)), seeds_of(0, 8), 0.0))
    assert not torch.isfinite(logits(tiny, prompts(1), [None], 0)).any()
    tiny.adapt(ClearAdapter(0))
    assert torch.equal(logits(tiny, prompts(1), [3], 0)[0], found[1])
    tiny.run(make_batch([], cleared_pages=ints([0])))


def test_perturbed_adapters_past_the_limit_are_made_again(
    tiny: TorchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pie.model.adapter.NOISY_BYTES", 1)
    tiny.adapt(SETTINGS)
    rows = logits(tiny, prompts(3), [1, 2, 3], 0)
    assert len(tiny._adapters._noisy) == 1
    assert torch.equal(logits(tiny, prompts(3), [1, 2, 3], 0), rows)


def evolved() -> str:
    """Digest of an adapter after three generations."""
    strategy = Strategy.start(SMALL, CONFIG, max_rank=4)
    for generation in range(3):
        scores = tuple(float(i * i % 7) for i in range(16))
        strategy = strategy.update(UpdateAdapter(0, scores, seeds_of(generation, 16), 0.1))
    adapter = strategy.adapter(-12)
    parts = [part for p in adapter.values() for part in (p.down.tobytes(), p.up.tobytes())]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_two_processes_evolve_the_same_bits() -> None:
    code = "from tests.model.test_evolution import evolved; print(evolved())"
    command = [sys.executable, "-c", code]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == evolved()


def test_a_downloaded_mean_acts_like_the_strategy_without_noise(tiny: TorchRunner) -> None:
    tiny.adapt(attrs.evolve(SETTINGS, alpha=0.3))
    for generation in range(2):
        tiny.adapt(UpdateAdapter(0, tuple(range(8)), seeds_of(generation, 8), 0.0))
    data = tiny.adapt(DownloadAdapter(0))
    tiny.adapt(UploadAdapter(1, data))
    assert tiny.adapt(DownloadAdapter(1)) == data
    mean = logits(tiny, prompts(1), [None], 0)
    assert torch.equal(logits(tiny, prompts(1), [None], 1), mean)
    assert torch.equal(logits(tiny, prompts(1), [3], 1), mean)
    assert not torch.equal(logits(tiny, prompts(1), [3], 0), mean)
    with pytest.raises(PassFailed, match="slot 1 holds an uploaded adapter"):
        tiny.adapt(UpdateAdapter(1, tuple(range(8)), seeds_of(0, 8), 0.0))


def test_only_the_order_of_scores_counts_and_no_number_is_the_worst() -> None:
    start = Strategy.start(SMALL, CONFIG, max_rank=4)
    seeds = seeds_of(0, 16)
    found = [
        start.update(UpdateAdapter(0, scores, seeds, 0.0)).mean
        for scores in (
            tuple(float(i) for i in range(16)),
            tuple(float(i**3) - 900 for i in range(16)),
            (float("nan"), *(float(i) for i in range(1, 16))),
            tuple(float(-i) for i in range(16)),
        )
    ]
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
    assert not np.array_equal(found[0], found[3])


def test_the_mean_moves_to_the_weighted_best() -> None:
    start = Strategy.start(SMALL, CONFIG, max_rank=4)
    seeds = seeds_of(0, 16)
    after = start.update(UpdateAdapter(0, tuple(float(i) for i in range(16)), seeds, 0.0))
    weights = recombination_weights(16, 0.5)
    best = [start.adapter(seed)[1, "k"].up for seed in seeds[::-1][: len(weights)]]
    want = sum(weight * up for weight, up in zip(weights, best, strict=True))
    np.testing.assert_allclose(after.adapter()[1, "k"].up, want, atol=1e-6)


def test_sigma_and_variance_keep_their_bounds() -> None:
    strategy = Strategy.start(SMALL, CONFIG, max_rank=4)
    same = (5,) * 16  # a population of one point: as far from the expected as can be
    for _ in range(5):
        strategy = strategy.update(UpdateAdapter(0, (1.0,) * 16, same, 0.35))
    assert (strategy.sigma == 0.35).all()
    extreme = attrs.evolve(
        strategy,
        variance=np.where(strategy.mean > 0, 1e-20, 1e20).astype(np.float32),
        sigma=np.full(2, 1e-30),
    )
    extreme = extreme.update(UpdateAdapter(0, tuple(range(16)), seeds_of(1, 16), 0.0))
    assert extreme.variance.min() >= np.float32(MIN_VARIANCE)
    assert extreme.variance.max() <= MAX_VARIANCE
    assert (extreme.sigma == MIN_SIGMA).all()


@pytest.mark.parametrize(
    ("population", "fraction", "mu"),
    [(8, 0.5, 4), (8, 0.0, 1), (8, 1.0, 8), (1, 1.0, 1), (7, 0.3, 2)],
)
def test_the_best_share_the_weight_by_rank(population: int, fraction: float, mu: int) -> None:
    weights = recombination_weights(population, fraction)
    assert len(weights) == mu
    assert weights.sum() == pytest.approx(1.0)
    assert (np.diff(weights) < 0).all()
    assert weights.min() > 0


def test_the_rates_of_the_paper() -> None:
    """Ros and Hansen (2008), for ten parameters and four equal parents."""
    rates = Rates.of(np.array([1 / 4] * 4), 10)
    assert rates.parents == pytest.approx(4)
    assert rates.path == pytest.approx(6 / 17)
    assert rates.damping == pytest.approx(1 + 6 / 17)
    assert rates.drift == pytest.approx(4 / 14)
    full = 2 / (10 + 2**0.5) ** 2 / 4 + 0.75 * 7 / 148
    assert rates.variance == pytest.approx(full * 4)
    assert rates.expected == pytest.approx(3.0847, abs=1e-3)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"rank": 0}, "rank 0 is not 1 to 64"),
        ({"rank": 65}, "rank 65 is not 1 to 64"),
        ({"population_size": 0}, "population size 0 is not at least 1"),
        ({"mu_fraction": 1.5}, "mu fraction 1.5 is not 0 to 1"),
        ({"alpha": float("inf")}, "alpha inf is no finite float32"),
        ({"initial_sigma": float("nan")}, "initial sigma nan is not a finite number"),
    ],
)
def test_settings_that_mean_nothing_fail(
    tiny: TorchRunner, change: dict[str, Any], problem: str
) -> None:
    with pytest.raises(PassFailed, match=problem):
        tiny.adapt(attrs.evolve(SETTINGS, **change))


def test_scores_must_be_those_of_the_population(tiny: TorchRunner) -> None:
    tiny.adapt(SETTINGS)
    before = tiny.adapt(DownloadAdapter(0))
    for scores, seeds in (((1.0,) * 7, (1,) * 7), ((1.0,) * 8, (1,) * 7), ((), ())):
        with pytest.raises(PassFailed, match=f"{len(scores)} scores and {len(seeds)} seeds"):
            tiny.adapt(UpdateAdapter(0, scores, seeds, 0.0))
    assert tiny.adapt(DownloadAdapter(0)) == before
