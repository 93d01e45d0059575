"""How much is measured, and on which prompts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import attrs

_FILE = Path(__file__).with_name("prompts.json")
_IDS = 40_000
"""First tokens that are put in are below this: all models here have as many."""


@attrs.frozen(kw_only=True)
class Plan:
    """Sizes; the same for all who are measured."""

    rounds: int
    decode_tokens: int
    batch_tokens: int
    tax_streams: tuple[int, ...] = (1, 8, 32)
    tax_tokens: int
    agent_rounds: int
    agent_size: float
    """Of the agents' jobs, where 1 is the whole."""
    neighbour_rounds: int
    neighbour_tokens: int
    """Few: an engine that spins has a thirtieth of its speed beside a busy process."""
    latency_guests: int = 64
    latency_tokens: int
    starts: int


USUAL = Plan(
    rounds=3,
    decode_tokens=128,
    batch_tokens=64,
    tax_tokens=48,
    agent_rounds=2,
    agent_size=1.0,
    neighbour_rounds=2,
    neighbour_tokens=16,
    latency_tokens=32,
    starts=3,
)
QUICK = Plan(
    rounds=1,
    decode_tokens=24,
    batch_tokens=8,
    tax_tokens=16,
    agent_rounds=1,
    agent_size=0.25,
    neighbour_rounds=1,
    neighbour_tokens=4,
    latency_tokens=4,
    starts=1,
)


@attrs.frozen
class Prompts:
    """Token ids. A fresh prompt is one of which nobody has computed a part."""

    short: tuple[int, ...]
    long: tuple[tuple[int, ...], ...]
    """512 tokens each."""
    middle: tuple[tuple[int, ...], ...]
    """64 tokens each."""
    ends: tuple[tuple[int, ...], ...]
    """32 tokens each."""

    def fresh(self, number: int) -> Sequence[int]:
        """512 tokens, the same for everybody who asks for this number."""
        return _marked(self.long[number % len(self.long)], number)

    def batch(self, streams: int, number: int) -> list[list[int]]:
        """`streams` prompts of 64 tokens: none begins like one of another batch."""
        chosen = [self.middle[(number * 17 + i) % len(self.middle)] for i in range(streams)]
        mark = streams * 1009 + number * 97
        return [_marked(prompt, mark + i) for i, prompt in enumerate(chosen)]


def _marked(prompt: Sequence[int], mark: int) -> list[int]:
    """The prompt with another first token, so that no cache of prefixes helps."""
    return [100 + mark % _IDS, *prompt[1:]]


@cache
def prompts() -> Prompts:
    found = json.loads(_FILE.read_text())
    lists = {name: tuple(map(tuple, found[name])) for name in ("long", "middle", "ends")}
    return Prompts(short=tuple(found["short"]), **lists)
