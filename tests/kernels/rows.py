"""Rows of logits for the sampling kernels, and the reference to compare with."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import numpy as np
import torch
from numpy.typing import NDArray

from pie.batch import Floats, Ints
from pie.kernels.cpu import sampling
from pie.model.sampler import Draws, Ranking
from pie.model.sampler import rank as reference_rank
from pie.model.sampler import sample as reference_sample

CLOSE = 1e-5
"""How near a border a number must be for float32 weights to decide otherwise."""


@attrs.frozen
class Ask:
    """What a slot asks for; all but `top_k` as float32 has them."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    uniform: float = 0.5


class _Scratch:
    """Scratch memory full of ones, and some bytes on either side that must stay so."""

    def __init__(self, vocabulary: int) -> None:
        self._size = sampling.scratch_bytes(vocabulary)
        self._bytes = np.full(self._size + 8192, 0xFF, np.uint8)
        self.address = self._bytes.ctypes.data + 4096

    def check(self) -> None:
        assert (self._bytes[:4096] == 0xFF).all()
        assert (self._bytes[4096 + self._size :] == 0xFF).all()


def draw(logits: Floats, ask: Ask, room: int = 0) -> int:
    """A token by the kernels, with scratch memory for `room` tokens or more."""
    scratch = _Scratch(max(room, len(logits)))
    token: int = sampling.draw(
        logits.ctypes.data,
        len(logits),
        float(ask.temperature),
        ask.top_k,
        float(ask.top_p),
        float(ask.min_p),
        float(ask.uniform),
        scratch.address,
    )
    scratch.check()
    return token


def rank(logits: Floats, temperature: float, k: int) -> tuple[Ints, Floats]:
    scratch = _Scratch(len(logits))
    ids = np.full(2 * len(logits) + 8, -7, np.int32)
    probabilities = np.full(2 * len(logits) + 8, -7, np.float32)
    count = sampling.rank(
        logits.ctypes.data,
        len(logits),
        temperature,
        k,
        ids.ctypes.data,
        probabilities.ctypes.data,
        scratch.address,
    )
    scratch.check()
    assert count <= min(k, len(logits))
    assert (ids[count:] == -7).all()
    assert (probabilities[count:] == -7).all()
    return ids[:count], probabilities[:count]


def by_the_reference(logits: Floats, asks: list[Ask]) -> list[int]:
    columns = {name: [getattr(ask, name) for ask in asks] for name in attrs.fields_dict(Ask)}
    settings = {
        name: torch.tensor(column, dtype=torch.int64 if name == "top_k" else torch.float64)
        for name, column in columns.items()
    }
    rows = torch.zeros(len(asks), dtype=torch.long)
    tokens = reference_sample(torch.from_numpy(logits)[None], rows, Draws(**settings))
    return [int(token) for token in tokens]


def ranked_by_the_reference(logits: Floats, temperature: float, k: int) -> Ranking:
    return reference_rank(
        torch.from_numpy(logits)[None],
        torch.zeros(1, dtype=torch.long),
        torch.tensor([temperature], dtype=torch.float64),
        torch.tensor([k]),
    )


def at_a_border(logits: Floats, ask: Ask, token: int) -> bool:
    """Whether the reference draws `token` when numbers are nudged by no more than CLOSE."""
    nudged = [
        attrs.evolve(
            ask,
            top_p=ask.top_p * (1 + p * CLOSE) if ask.top_p < 1 else ask.top_p,
            uniform=min(max(ask.uniform + u * CLOSE, 0.0), 1 - 2**-53),
        )
        for p in (-1, 0, 1)
        for u in (-1, 0, 1)
    ]
    return token in by_the_reference(logits, nudged)


def float32(value: float) -> float:
    return float(np.float32(value))


def asks(random: np.random.Generator, vocabulary: int) -> Iterator[Ask]:
    """Every combination of filters that are on and off, with numbers by chance."""
    for temperature in (0.0, 0.3, 1.0, 2.5):
        for top_k in (0, int(random.integers(1, vocabulary + 3)), min(3, vocabulary)):
            for top_p in (1.0, float32(random.random()), float32(1 - random.random() / 50)):
                for min_p in (0.0, float32(random.random() ** 4)):
                    uniform = float32(int(random.integers(0, 2**24)) / 2**24)
                    yield Ask(temperature, top_k, top_p, min_p, uniform)


def kinds_of_rows(random: np.random.Generator, vocabulary: int) -> Iterator[Floats]:
    """Flat, ordinary and steep rows, some of few values, huge ones and tiny ones."""
    normal: NDArray[np.float64] = random.standard_normal(vocabulary)
    for scale in (0.01, 1.0, 6.0, 1e30, 1e-30):
        yield (normal * scale).astype(np.float32)
    yield np.round(normal).astype(np.float32)
    yield np.zeros(vocabulary, np.float32)
    yield (np.round(normal / 2) * np.float32(-0.0)).astype(np.float32)
    yield (normal * 4 + 20).astype(np.float32)
    yield np.where(normal > 1, np.float32(3e38), np.float32(-3e38)).astype(np.float32)
