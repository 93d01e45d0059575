"""What ends a turn of a chat model, and the tokens that its template names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

_KNOWN_ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "<eos>",
    "</s>",
)
"""Tokens that end a turn or a text in some model; files often name only one of theirs."""


def stop_tokens(texts: Mapping[int, str], named: Sequence[int]) -> tuple[str, ...]:
    """The tokens at which generation ends: those the file names first, then the usual ones.

    `texts` has those of special tokens, by id.
    """
    found = [texts[token] for token in named if token in texts]
    present = set(texts.values())
    found += [text for text in _KNOWN_ENDS if text in present]
    return tuple(dict.fromkeys(found))


def with_tokens(template: str, **tokens: str) -> str:
    """A Jinja template that knows the tokens it uses: `bos_token`, `eos_token`.

    Who renders it is a guest, who is told of a template and stop tokens, but not of these.
    """
    known = [
        f"{{% set {name} = {json.dumps(text, ensure_ascii=False)} %}}"
        for name, text in tokens.items()
        if text and name in template
    ]
    return "".join(known) + template
