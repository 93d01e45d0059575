"""How the next token is chosen (contract S1). The drawing itself happens beside the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from . import host


class Sampler(Protocol):
    """Something that can ask a forward pass for tokens."""

    async def request(self, forward_pass: Any, indices: list[int]) -> None:
        """Add a sampling slot to the pass for each input index."""


@dataclass(frozen=True)
class Greedy:
    """The most probable token."""

    async def request(self, forward_pass: Any, indices: list[int]) -> None:
        await host.output_tokens(forward_pass, indices, 0.0)


@dataclass(frozen=True)
class Multinomial:
    """Any token, by its probability at `temperature`."""

    temperature: float = 1.0

    async def request(self, forward_pass: Any, indices: list[int]) -> None:
        await host.output_tokens(forward_pass, indices, self.temperature)


@dataclass(frozen=True)
class TopP:
    """From the smallest set of tokens with mass of at least `p`."""

    p: float = 0.95
    temperature: float = 1.0

    async def request(self, forward_pass: Any, indices: list[int]) -> None:
        await host.output_tokens_top_p(forward_pass, indices, self.temperature, self.p)


@dataclass(frozen=True)
class TopK:
    """From the `k` most probable tokens; 0 is off."""

    k: int
    temperature: float = 1.0

    async def request(self, forward_pass: Any, indices: list[int]) -> None:
        await host.output_tokens_top_k(forward_pass, indices, self.temperature, self.k)


@dataclass(frozen=True)
class MinP:
    """From the tokens with at least `p` times the greatest probability."""

    p: float
    temperature: float = 1.0

    async def request(self, forward_pass: Any, indices: list[int]) -> None:
        await host.output_tokens_min_p(forward_pass, indices, self.temperature, self.p)


@dataclass(frozen=True)
class TopKTopP:
    """The `k` most probable tokens first, then the smallest set of them with mass `p`."""

    k: int
    p: float
    temperature: float = 1.0

    async def request(self, forward_pass: Any, indices: list[int]) -> None:
        await host.output_tokens_top_k_top_p(
            forward_pass, indices, self.temperature, self.k, self.p
        )


PLAIN: frozenset[type] = frozenset({Greedy, Multinomial, TopP, TopK, MinP, TopKTopP})
"""Samplers that ask every pass for the same, and so need not be asked before each."""


@dataclass(frozen=True)
class Distribution:
    """Not a token but the most probable ones with their probabilities, at most `top_k`."""

    temperature: float
    top_k: int | None

    async def request(self, forward_pass: Any, indices: list[int]) -> None:
        await host.output_distributions(forward_pass, indices, self.temperature, self.top_k)
