"""When generation ends. Conditions combine with `|`: the first that is met ends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Stop:
    """Ends at a number of tokens, after a token sequence, or where a text appears.

    What matched is not part of the generated text; a matched token sequence is part of the
    generated tokens.
    """

    sequences: tuple[tuple[int, ...], ...] = ()
    texts: tuple[str, ...] = ()
    limit: int | None = None

    def __post_init__(self) -> None:
        if not all(self.sequences) or not all(self.texts):
            raise ValueError("an empty stop sequence would end generation before it begins")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"a limit of {self.limit} tokens is below 1")

    def __or__(self, other: Stop) -> Stop:
        limits = [each.limit for each in (self, other) if each.limit is not None]
        return Stop(
            self.sequences + other.sequences,
            self.texts + other.texts,
            min(limits, default=None),
        )

    @cached_property
    def closing(self) -> list[int]:
        """The tokens that sequences end with: after no other may there be a match."""
        return sorted({sequence[-1] for sequence in self.sequences})

    @cached_property
    def marks(self) -> frozenset[int]:
        """The tokens of all sequences: after no other has one matched or begun."""
        return frozenset(token for sequence in self.sequences for token in sequence)

    def matched(self, tokens: Sequence[int]) -> int:
        """Length of the longest sequence that `tokens` end with, or 0."""
        if self.marks.isdisjoint(tokens[-1:]):
            return 0
        return max((len(s) for s in self.sequences if _ends_with(tokens, s)), default=0)

    def begun(self, tokens: Sequence[int]) -> int:
        """How many of the last tokens may be the beginning of a sequence."""
        if self.marks.isdisjoint(tokens[-1:]):
            return 0
        return max(
            (
                length
                for sequence in self.sequences
                for length in range(1, min(len(sequence), len(tokens) + 1))
                if _ends_with(tokens, sequence[:length])
            ),
            default=0,
        )

    def found(self, text: str) -> int:
        """Where the first of the texts begins in `text`, or -1."""
        places = [place for stop in self.texts if (place := text.find(stop)) >= 0]
        return min(places, default=-1)

    def held(self, text: str) -> int:
        """How many of the last characters may be the beginning of one of the texts."""
        return max(
            (
                length
                for stop in self.texts
                for length in range(1, len(stop))
                if text.endswith(stop[:length])
            ),
            default=0,
        )


def max_tokens(count: int) -> Stop:
    """End after `count` tokens."""
    return Stop(limit=count)


def stop_text(*texts: str) -> Stop:
    """End where one of the texts appears."""
    return Stop(texts=texts)


def stop_tokens(*sequences: Sequence[int]) -> Stop:
    """End after one of the token sequences."""
    return Stop(sequences=tuple(tuple(sequence) for sequence in sequences))


def _ends_with(tokens: Sequence[int], sequence: Sequence[int]) -> bool:
    return len(tokens) >= len(sequence) and tuple(tokens[-len(sequence) :]) == tuple(sequence)
