"""The tokenizer of a Hugging Face folder: its tokenizer.json, decoded by our rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Encoder

from pie.errors import ModelError

from .splits import GPT2_SPLIT
from .tokenizer import HFTokenizer, make_tokenizer


def tokenizer_from_json(path: Path) -> HFTokenizer:
    """Read `path`; ModelError if it is no tokenizer or stores tokens in an unknown form."""
    try:
        text = path.read_text(encoding="utf-8")
        facts = json.loads(text)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ModelError(f"{path}: not JSON: {error}") from None
    if not isinstance(facts, dict) or "type" not in (facts.get("model") or {}):
        raise ModelError(f"{path}: not a tokenizer of the tokenizers library")
    encoder = Encoder.from_str(text)
    pieces = _parts(facts.get("decoder"), "decoders")
    kinds = {piece.get("type") for piece in pieces}
    if not kinds & {"ByteLevel", "ByteFallback"}:
        raise ModelError(f"{path}: decoder {sorted(map(str, kinds))} is not supported")
    stored = {token: form for form, token in encoder.get_vocab(with_added_tokens=True).items()}
    added = {token: entry.special for token, entry in encoder.get_added_tokens_decoder().items()}
    return make_tokenizer(
        encoder,
        stored,
        verbatim=set(added),
        special={token for token, special in added.items() if special},
        byte_level="ByteLevel" in kinds,
        split=_split(facts),
    )


def _parts(step: dict[str, Any] | None, several: str) -> list[dict[str, Any]]:
    """A step of the pipeline as a list of simple steps."""
    if step is None:
        return []
    if step.get("type") == "Sequence":
        return [part for inner in step[several] for part in _parts(inner, several)]
    return [step]


def _split(facts: dict[str, Any]) -> str:
    """The splitting rule as one regex; empty if there is none, alternatives if several."""
    rules: list[str] = []
    for step in _parts(facts.get("pre_tokenizer"), "pretokenizers"):
        if step["type"] == "Split" and "Regex" in step["pattern"]:
            rules.append(step["pattern"]["Regex"])
        elif step["type"] == "Digits":
            rules.append(r"\p{N}" if step.get("individual_digits") else r"\p{N}+")
        elif step["type"] == "ByteLevel" and step.get("use_regex", True):
            rules.append(GPT2_SPLIT)
    return "|".join(rules)
