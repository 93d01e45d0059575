"""What ends a turn of a chat model."""

from __future__ import annotations

from collections.abc import Sequence

_KNOWN_ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "</s>",
)
"""Tokens that end a turn or a text in some model; files often name only one of theirs."""


def stop_tokens(texts: Sequence[str], named: Sequence[int]) -> tuple[str, ...]:
    """The tokens at which generation ends: those the file names first, then the usual ones."""
    found = [texts[token] for token in named if 0 <= token < len(texts)]
    present = set(texts)
    found += [text for text in _KNOWN_ENDS if text in present]
    return tuple(dict.fromkeys(found))
