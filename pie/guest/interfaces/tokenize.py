"""`inferlet:core/tokenize`: the model's real tokenizer (contract X2)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sized
from typing import Any, TypeVar

import attrs

from pie.batch import Tokenizer
from pie.guest.host import HostInterface
from pie.guest.instance import Instance

from .handles import Model

tokenize = HostInterface("inferlet:core/tokenize")

S = TypeVar("S", bound=Sized)
T = TypeVar("T")

INLINE_LENGTH = 2048
"""Characters or tokens converted on the loop, in about a millisecond; more go to a thread."""


@attrs.frozen(eq=False)
class TokenizerHandle:
    """A guest's handle of a model's tokenizer."""

    tokenizer: Tokenizer


def converted(
    instance: Instance, convert: Callable[[S], T], value: S
) -> T | Coroutine[Any, Any, T]:
    """What `convert` makes of a text or tokens: at once, or in a thread if that takes long."""
    if len(value) <= INLINE_LENGTH:
        return convert(value)
    return instance.offload(convert, value)


@tokenize.function("get-tokenizer")
def get_tokenizer(instance: Instance, model: Model) -> TokenizerHandle:
    return TokenizerHandle(model.service.info.tokenizer)


@tokenize.function("[method]tokenizer.tokenize", suspends=True)
def encode(
    instance: Instance, handle: TokenizerHandle, text: str
) -> list[int] | Coroutine[Any, Any, list[int]]:
    return converted(instance, handle.tokenizer.encode, text)


@tokenize.function("[method]tokenizer.detokenize", suspends=True)
def decode(
    instance: Instance, handle: TokenizerHandle, tokens: list[int]
) -> str | Coroutine[Any, Any, str]:
    return converted(instance, handle.tokenizer.decode, tokens)


@tokenize.function("[method]tokenizer.get-vocabs", suspends=True)
def get_vocabs(
    instance: Instance, handle: TokenizerHandle
) -> Coroutine[Any, Any, tuple[list[int], list[bytes]]]:
    return instance.offload(handle.tokenizer.vocabulary)


@tokenize.function("[method]tokenizer.get-special-tokens")
def get_special_tokens(
    instance: Instance, handle: TokenizerHandle
) -> tuple[list[int], list[bytes]]:
    return handle.tokenizer.special_tokens()


@tokenize.function("[method]tokenizer.get-split-regex")
def get_split_regex(instance: Instance, handle: TokenizerHandle) -> str:
    return handle.tokenizer.split_regex()
