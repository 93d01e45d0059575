"""Objects of fixed fields: what the form decides is filled in, what is free is chosen.

A field's tokens are the most probable ones that its kind allows. Keys and punctuation take no
step of the model: they are pending, and computed with the first token of the next field.
"""

from __future__ import annotations

import json
from typing import Any

import inferlet

_LOOKED_AT = 64
"""Tokens of a distribution among which an allowed one is sought; a field ends without one."""


async def run(spec: dict[str, Any]) -> list[str]:
    """The JSON text for each of the `prompts`."""
    model = await inferlet.get_model()
    pieces: dict[int, str] = {}
    return list(
        await inferlet.gather(*(_object(model, each, spec, pieces) for each in spec["prompts"]))
    )


async def _object(
    model: inferlet.Model, prompt: str, spec: dict[str, Any], pieces: dict[int, str]
) -> str:
    context = await inferlet.Context.create(model)
    await context.fill(prompt)
    text = "{"
    for number, (key, kind) in enumerate(spec["fields"]):
        opening = f"{', ' * bool(number)}{json.dumps(key)}: {_quote(kind)}"
        await context.fill("{" * (number == 0) + opening)
        value = await _value(context, kind, spec["limits"][kind], pieces)
        await context.fill(_quote(kind))
        text += opening + value + _quote(kind)
    return text + "}"


async def _value(context: inferlet.Context, kind: str, limit: int, pieces: dict[int, str]) -> str:
    """Up to `limit` characters that a field of this kind may have."""
    value = ""
    while len(value) < limit:
        ids, _ = await context.distribution(top_k=_LOOKED_AT)
        for token in ids:
            if token not in pieces:
                pieces[token] = await context.model.detokenize([token])
            piece = pieces[token]
            if _ends(kind, value, piece):
                return value or _nothing(kind)
            if _allowed(kind, value, piece, limit):
                context.fill_tokens([token])
                value += piece
                break
        else:
            return value or _nothing(kind)
    return value


def _quote(kind: str) -> str:
    return '"' if kind == "string" else ""


def _nothing(kind: str) -> str:
    return "" if kind == "string" else "0"


def _ends(kind: str, value: str, piece: str) -> bool:
    """Whether this token would go on after the field."""
    if kind == "string":
        return piece.startswith('"')
    return bool(value) and piece[:1] in (",", "}", "\n", " ")


def _allowed(kind: str, value: str, piece: str, limit: int) -> bool:
    if not piece or len(value) + len(piece) > limit:
        return False
    if kind == "string":
        return piece.isascii() and piece.replace(" ", "").isalpha()
    return piece.isascii() and piece.isdecimal() and not (value + piece).startswith("0")
