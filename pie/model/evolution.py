"""An evolution strategy over LoRA weights (contract X8, `inferlet:zo/evolve`), in NumPy.

Sep-CMA-ES: R. Ros, N. Hansen, "A Simple Modification in CMA-ES Achieving Linear Time and Space
Complexity", PPSN 2008, with cumulative step-size adaptation (CSA). Each layer is a search of its
own over the vector of its factors, `mean + sigma * sqrt(variance) * z`. The standard normal z of
a seed is never kept or sent: Philox regenerates it wherever it is needed, the same in every
process, whatever else is in the batch.
"""

from __future__ import annotations

import math

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.batch import Floats, InitializeAdapter, UpdateAdapter
from pie.errors import PassFailed

from .config import LlamaConfig
from .lora_file import TARGETS, Adapter, Projection, outputs

MIN_SIGMA = 1e-7
MIN_VARIANCE, MAX_VARIANCE = 1e-8, 1e4

_START_SEED = 0x5EED
_NOISE, _START = 0, 1
"""Highest word of the Philox counter: so the start is no seed's noise."""

Doubles = NDArray[np.float64]


def recombination_weights(population_size: int, mu_fraction: float) -> Doubles:
    """Weights of the best, by rank, with sum one: `ln(mu + 1/2) - ln(rank)`, mu of them."""
    mu = min(max(1, int(population_size * mu_fraction)), population_size)
    weights = math.log(mu + 0.5) - np.log(np.arange(1, mu + 1))
    normalised: Doubles = weights / weights.sum()
    return normalised


@attrs.frozen
class Rates:
    """Learning rates for `size` parameters and an effective number of parents."""

    path: float
    damping: float
    drift: float
    variance: float
    parents: float
    expected: float
    """Expected length of a standard normal vector."""

    @staticmethod
    def of(weights: Doubles, size: int) -> Rates:
        """The paper's defaults; it allows separable covariances to learn (size + 2) / 3 faster."""
        parents = 1.0 / float(np.square(weights).sum())
        path = (parents + 2) / (size + parents + 3)
        rank_one = 2 / (size + math.sqrt(2)) ** 2
        rank_mu = min(1.0, (2 * parents - 1) / ((size + 2) ** 2 + parents))
        learned = rank_one / parents + (1 - 1 / parents) * rank_mu
        return Rates(
            path=path,
            damping=1 + 2 * max(0.0, math.sqrt((parents - 1) / (size + 1)) - 1) + path,
            drift=4 / (size + 4),
            variance=min(1.0, learned * (size + 2) / 3),
            parents=parents,
            expected=math.sqrt(size) * (1 - 1 / (4 * size) + 1 / (21 * size**2)),
        )


@attrs.frozen(eq=False, kw_only=True)
class Strategy:
    """The state between two updates; arrays are [layers, parameters of a layer]."""

    settings: InitializeAdapter
    config: LlamaConfig
    mean: Floats
    variance: Floats
    path: Floats
    """Of the steps in units of z, for the step size."""
    drift: Floats
    """Of the steps in units of sigma, for the variance."""
    sigma: Doubles
    """[layers]"""
    generation: int = 0

    @staticmethod
    def start(settings: InitializeAdapter, config: LlamaConfig, max_rank: int) -> Strategy:
        """Down factors as Kaiming's uniform makes them, up factors zero: at first no change."""
        _check(settings, max_rank)
        shape = (config.layers, sum(d + u for d, u in _sizes(config, settings.rank).values()))
        mean = np.zeros(shape, dtype=np.float32)
        # Kaiming uniform with negative slope sqrt(5), as LoRA layers use it.
        bound = np.float32(1 / math.sqrt(config.hidden))
        strategy = Strategy(
            settings=settings,
            config=config,
            mean=mean,
            variance=np.ones(shape, dtype=np.float32),
            path=np.zeros(shape, dtype=np.float32),
            drift=np.zeros(shape, dtype=np.float32),
            sigma=np.full(config.layers, settings.initial_sigma),
        )
        generators = [_generator(_START_SEED, layer, _START) for layer in range(config.layers)]
        for (layer, _), projection in strategy.adapter().items():
            uniform = generators[layer].random(projection.down.shape, dtype=np.float32)
            projection.down[:] = (2 * uniform - 1) * bound
        return strategy

    def adapter(self, seed: int | None = None) -> Adapter:
        """The mean, or the mean perturbed by the noise of `seed`; of the mean, views."""
        values = self.mean if seed is None else self.mean + self._spread() * self._noise(seed)
        adapter: Adapter = {}
        rank, hidden = self.settings.rank, self.config.hidden
        alpha = float(np.float32(self.settings.alpha))  # as a download keeps it
        for layer, vector in enumerate(values):
            at = 0
            for target, (down, up) in _sizes(self.config, rank).items():
                adapter[layer, target] = Projection(
                    vector[at : at + down].reshape(rank, hidden),
                    vector[at + down : at + down + up].reshape(-1, rank),
                    alpha,
                )
                at += down + up
        return adapter

    def update(self, command: UpdateAdapter) -> Strategy:
        """One generation: higher scores are better, one that is not a number is the worst.

        PassFailed unless there are as many scores and seeds as the population has members.
        """
        size = self.settings.population_size
        if not len(command.scores) == len(command.seeds) == size:
            raise PassFailed(
                f"update-adapter: {len(command.scores)} scores and {len(command.seeds)} seeds "
                f"for a population of {size} (X8)"
            )
        weights = recombination_weights(size, self.settings.mu_fraction)
        best = np.argsort(-np.array(command.scores, dtype=np.float64), kind="stable")
        step, squares = np.zeros_like(self.mean), np.zeros_like(self.mean)
        for weight, member in zip(weights.astype(np.float32), best.tolist(), strict=False):
            noise = self._noise(command.seeds[member])
            step += weight * noise
            squares += weight * (noise * noise)
        return self._moved(step, squares, Rates.of(weights, self.mean.shape[1]), command.max_sigma)

    def _moved(self, step: Floats, squares: Floats, rates: Rates, max_sigma: float) -> Strategy:
        """The next generation, from the weighted means of z and of its squares."""
        gain = math.sqrt(rates.path * (2 - rates.path) * rates.parents)
        path = _f32(1 - rates.path) * self.path + _f32(gain) * step
        length = np.sqrt(np.square(path).sum(axis=1, dtype=np.float64))
        # While the path is long, the drift stands still: sigma has to grow first.
        settled = 1 - (1 - rates.path) ** (2 * (self.generation + 1))
        short = length / math.sqrt(settled) < (1.4 + 2 / (step.shape[1] + 1)) * rates.expected
        gain = math.sqrt(rates.drift * (2 - rates.drift) * rates.parents)
        moved = np.sqrt(self.variance) * step * short[:, None]
        drift = _f32(1 - rates.drift) * self.drift + _f32(gain) * moved
        variance = (
            _f32(1 - rates.variance) * self.variance
            + _f32(rates.variance / rates.parents) * np.square(drift)
            + _f32(rates.variance * (1 - 1 / rates.parents)) * (self.variance * squares)
        )
        sigma = self.sigma * np.exp(rates.path / rates.damping * (length / rates.expected - 1))
        return attrs.evolve(
            self,
            mean=self.mean + self._spread() * step,
            variance=np.clip(variance, MIN_VARIANCE, MAX_VARIANCE, dtype=np.float32),
            path=path,
            drift=drift,
            sigma=np.clip(sigma, MIN_SIGMA, max_sigma if max_sigma > 0 else math.inf),
            generation=self.generation + 1,
        )

    def _spread(self) -> Floats:
        """Standard deviation of each parameter."""
        spread: Floats = self.sigma.astype(np.float32)[:, None] * np.sqrt(self.variance)
        return spread

    def _noise(self, seed: int) -> Floats:
        """The standard normal numbers that `seed` stands for."""
        layers, size = self.mean.shape
        rows = [
            _generator(seed, layer, _NOISE).standard_normal(size, dtype=np.float32)
            for layer in range(layers)
        ]
        return np.stack(rows)


def _f32(value: float) -> np.float32:
    return np.float32(value)


def _sizes(config: LlamaConfig, rank: int) -> dict[str, tuple[int, int]]:
    """Parameters of the down and up factors of each target, in the order they are kept."""
    return {t: (rank * config.hidden, rank * outputs(config)[t]) for t in TARGETS}


def _generator(seed: int, layer: int, purpose: int) -> np.random.Generator:
    key = np.array([seed & 0xFFFF_FFFF_FFFF_FFFF, layer], dtype=np.uint64)
    counter = np.array([0, 0, 0, purpose], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def _check(settings: InitializeAdapter, max_rank: int) -> None:
    rules = {
        f"rank {settings.rank} is not 1 to {max_rank}": 1 <= settings.rank <= max_rank,
        f"population size {settings.population_size} is not at least 1": (
            settings.population_size >= 1
        ),
        f"mu fraction {settings.mu_fraction} is not 0 to 1": 0 <= settings.mu_fraction <= 1,
        f"alpha {settings.alpha} is no finite float32": (
            abs(settings.alpha) <= np.finfo(np.float32).max
        ),
        f"initial sigma {settings.initial_sigma} is not a finite number of at least 0": (
            0 <= settings.initial_sigma < math.inf
        ),
    }
    for problem, kept in rules.items():
        if not kept:
            raise PassFailed(f"initialize-adapter: {problem} (X8)")
