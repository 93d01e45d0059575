"""How a Hugging Face folder chats: its template, and what ends a turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pie.batch import Tokenizer

from ..chat import stop_tokens, with_tokens
from .json_file import read_json_if_there


def hf_chat(
    folder: Path, config: dict[str, Any], tokenizer: Tokenizer
) -> tuple[str, tuple[str, ...]]:
    """The template and the stop tokens of `folder`, whose config.json is `config`.

    Ends are named in up to three places: one in tokenizer_config.json, and ids in
    generation_config.json or, where there are none, in config.json.
    """
    facts = read_json_if_there(folder / "tokenizer_config.json")
    texts = _texts(tokenizer)
    present = {text: token for token, text in texts.items()}
    begin, end = (_text(facts.get(key)) for key in ("bos_token", "eos_token"))
    generation = read_json_if_there(folder / "generation_config.json")
    ids = generation.get("eos_token_id")
    ids = config.get("eos_token_id") if ids is None else ids
    named = [present[end]] if end in present else []
    named += [token for token in (ids if isinstance(ids, list) else [ids]) if token in texts]
    return with_tokens(_template(folder, facts), bos_token=begin, eos_token=end), stop_tokens(
        texts, named
    )


def _template(folder: Path, facts: dict[str, Any]) -> str:
    beside = folder / "chat_template.jinja"
    if beside.exists():
        return beside.read_text(encoding="utf-8")
    template = facts.get("chat_template") or ""
    if isinstance(template, list):  # named templates
        named = {entry["name"]: entry["template"] for entry in template}
        template = named.get("default", "")
    return str(template)


def _text(token: Any) -> str:
    """A token in tokenizer_config.json, which may be written with its properties."""
    if isinstance(token, dict):
        token = token.get("content")
    return token or ""


def _texts(tokenizer: Tokenizer) -> dict[int, str]:
    """The special tokens."""
    ids, forms = tokenizer.special_tokens()
    return {token: form.decode() for token, form in zip(ids, forms, strict=True)}
