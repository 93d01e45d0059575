"""Text to token ids and back, by the rules the model was trained with (contract X2).

Encoding is Hugging Face `tokenizers`. Decoding is done here, from the stored forms: each token
has one byte string, wherever it stands, so that a guest may decode piece by piece.

A stored form is either *byte-level* (GPT-2: every byte is written as one printable character) or
*sentencepiece* (a space is written U+2581, a lone byte `<0xNN>`). A byte-level vocabulary need
not have all 256 bytes: SmolLM2's lacks 21, and such input becomes the unknown token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import attrs
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Encoder

from pie.errors import GuestError, ModelError

from .splits import COMPOSED, SPLITS, WHOLE_WORDS

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4  # tokenizer.ggml.token_type
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE = "\u2581"


def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable character for each byte, inverted."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


class Texts(dict[int, bytes]):
    """The text of each token, as bytes, made when it is first decoded."""

    def __init__(self, of: Callable[[int], bytes]) -> None:
        """`of` raises KeyError for what is no token."""
        super().__init__()
        self._of = of

    def __missing__(self, token: int) -> bytes:
        text = self[token] = self._of(token)
        return text


@attrs.frozen(eq=False)
class HFTokenizer:
    """A `pie.batch.Tokenizer`. Safe to call from several threads."""

    _encoder: Encoder = attrs.field(repr=False)
    _stored: dict[int, str] = attrs.field(repr=False)
    _special: frozenset[int] = attrs.field(repr=False)
    _split: str
    _texts: Texts = attrs.field(repr=False)

    def encode(self, text: str, /) -> list[int]:
        ids: list[int] = self._encoder.encode(text, add_special_tokens=False).ids
        return ids

    def encode_plain(self, text: str, /) -> list[int]:
        ids: list[int] = self._plain_encoder.encode(text, add_special_tokens=False).ids
        return ids

    @cached_property
    def _plain_encoder(self) -> Encoder:
        """One of its own, since the switch is not a matter of a call; made when it is needed."""
        encoder = Encoder.from_str(self._encoder.to_str())
        encoder.encode_special_tokens = True
        return encoder

    def decode(self, tokens: Sequence[int], /) -> str:
        try:
            joined = b"".join([self._texts[token] for token in tokens])
        except KeyError as error:
            raise GuestError(
                f"token {error.args[0]} is not in the vocabulary of {len(self._stored)} tokens"
            ) from None
        return joined.decode(errors="replace")

    def vocabulary(self) -> tuple[list[int], list[bytes]]:
        return self._stored_forms(special=False)

    def special_tokens(self) -> tuple[list[int], list[bytes]]:
        return self._stored_forms(special=True)

    def split_regex(self) -> str:
        return self._split

    def _stored_forms(self, *, special: bool) -> tuple[list[int], list[bytes]]:
        ids = [token for token in self._stored if (token in self._special) == special]
        return ids, [self._stored[token].encode() for token in ids]


def make_tokenizer(
    encoder: Encoder,
    stored: dict[int, str],
    *,
    verbatim: set[int],
    special: set[int],
    byte_level: bool,
    split: str,
) -> HFTokenizer:
    """Derive what decoding needs; `verbatim` tokens are stored as the text they stand for."""
    # What is no character of the alphabet goes where Latin-1, whose codes are bytes, ends.
    table = dict.fromkeys(range(256), 0x100) | {ord(c): b for c, b in byte_alphabet().items()}

    def content(token: int) -> bytes:
        text = stored[token]
        if token in verbatim:
            return text.encode()
        if byte_level:
            try:
                return text.translate(table).encode("latin-1")
            except UnicodeEncodeError:
                return text.encode()
        if found := _BYTE_TOKEN.fullmatch(text):
            return bytes([int(found[1], 16)])
        return text.replace(_SPACE, " ").encode()

    stored = dict(sorted(stored.items()))
    return HFTokenizer(encoder, stored, frozenset(special), split, Texts(content))


def tokenizer_from_gguf(metadata: dict[str, Any], source: str) -> HFTokenizer:
    """Build the tokenizer that a GGUF file describes; ModelError if it is of an unknown kind."""
    kind = metadata.get("tokenizer.ggml.model")
    tokens: list[str] = _strings(metadata, "tokenizer.ggml.tokens", source)
    types = _numbers(metadata, "tokenizer.ggml.token_type", source) or [1] * len(tokens)
    vocabulary = {text: token for token, text in enumerate(tokens)}
    if len(vocabulary) != len(tokens) or len(types) != len(tokens):
        raise ModelError(
            f"{source}: {len(tokens)} tokens with {len(vocabulary)} different texts and "
            f"{len(types)} types: the vocabulary is damaged"
        )
    unknown = metadata.get("tokenizer.ggml.unknown_token_id")
    if unknown is not None and unknown not in range(len(tokens)):
        raise ModelError(f"{source}: the unknown token {unknown!r} is not in the vocabulary")
    unknown_text = None if unknown is None else tokens[unknown]
    if kind == "gpt2":
        encoder, split = _byte_level(metadata, vocabulary, unknown_text, source)
    elif kind == "llama":
        encoder, split = _sentencepiece(metadata, tokens, vocabulary, unknown_text, source), ""
    else:
        raise ModelError(f"{source}: tokenizer {kind!r} is not supported (gpt2 and llama are)")
    added = [
        AddedToken(text, special=types[token] == _CONTROL, normalized=False)
        for token, text in enumerate(tokens)
        if types[token] in (_CONTROL, _USER_DEFINED)
    ]
    encoder.add_tokens(added)
    return make_tokenizer(
        encoder,
        dict(enumerate(tokens)),
        verbatim={i for i, t in enumerate(types) if t in (_UNKNOWN, _CONTROL, _USER_DEFINED)},
        special={i for i, t in enumerate(types) if t in (_UNKNOWN, _CONTROL)},
        byte_level=kind == "gpt2",
        split=split,
    )


def _strings(metadata: dict[str, Any], key: str, source: str) -> list[str]:
    values = metadata.get(key)
    if not isinstance(values, list) or not all(isinstance(v, str) for v in values) or not values:
        raise ModelError(f"{source}: metadata {key} is missing or not a list of texts")
    return values


def _numbers(metadata: dict[str, Any], key: str, source: str) -> list[float]:
    values = metadata.get(key, [])
    if not isinstance(values, list) or not all(isinstance(v, int | float) for v in values):
        raise ModelError(f"{source}: metadata {key} is not a list of numbers")
    return values


def _byte_level(
    metadata: dict[str, Any], vocabulary: dict[str, int], unknown: str | None, source: str
) -> tuple[Encoder, str]:
    pre = metadata.get("tokenizer.ggml.pre", "default")
    if pre not in SPLITS:
        raise ModelError(f"{source}: pre-tokenizer {pre!r} is not supported ({', '.join(SPLITS)})")
    missing = [character for character in byte_alphabet() if character not in vocabulary]
    if missing and unknown is None:
        raise ModelError(
            f"{source}: {len(missing)} bytes have no token and no unknown token stands in"
        )
    merges = _merges(metadata, vocabulary, source)
    encoder = Encoder(
        models.BPE(
            vocab=vocabulary,
            merges=merges,
            unk_token=unknown,
            ignore_merges=pre in WHOLE_WORDS,
        )
    )
    if pre in COMPOSED:
        encoder.normalizer = normalizers.NFC()
    encoder.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLITS[pre]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return encoder, SPLITS[pre]


def _merges(
    metadata: dict[str, Any], vocabulary: dict[str, int], source: str
) -> list[tuple[str, str]]:
    """The pairs in their order; ModelError if one is not of two tokens that make a third."""
    pairs: list[Any] = [
        tuple(line.split(" ")) for line in _strings(metadata, "tokenizer.ggml.merges", source)
    ]
    if broken := sum(len(pair) != 2 for pair in pairs):
        raise ModelError(f"{source}: {broken} merges are not two pieces")
    strange = [
        1
        for left, right in pairs
        if not (left in vocabulary and right in vocabulary and left + right in vocabulary)
    ]
    if strange:
        raise ModelError(f"{source}: {len(strange)} merges use pieces that are no tokens")
    return pairs


def _sentencepiece(
    metadata: dict[str, Any],
    tokens: list[str],
    vocabulary: dict[str, int],
    unknown: str | None,
    source: str,
) -> Encoder:
    """A BPE whose merge order is that of the scores, as SentencePiece's own BPE has it."""
    scores = _numbers(metadata, "tokenizer.ggml.scores", source)
    if len(scores) != len(tokens):
        raise ModelError(f"{source}: {len(scores)} scores for {len(tokens)} tokens")
    ranked: list[tuple[float, int, str, str]] = []
    for token, text in enumerate(tokens):
        splits = [(text[:i], text[i:]) for i in range(1, len(text))]
        ranked += [
            (-scores[token], vocabulary[left], left, right)
            for left, right in splits
            if left in vocabulary and right in vocabulary
        ]
    ranked.sort(key=lambda entry: entry[:2])
    merges = [(left, right) for _, _, left, right in ranked]
    encoder = Encoder(
        models.BPE(
            vocab=vocabulary, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True
        )
    )
    steps: list[Any] = [normalizers.Replace(" ", _SPACE)]
    if metadata.get("tokenizer.ggml.add_space_prefix", True):
        steps.insert(0, normalizers.Prepend(_SPACE))
    encoder.normalizer = normalizers.Sequence(steps)
    return encoder
