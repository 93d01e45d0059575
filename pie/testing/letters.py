"""What the simulated models share: a vocabulary of bytes, and answers that are mostly letters."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pie.batch import Batch, BatchResult, ModelInfo, floats, ints
from pie.errors import GuestError

SPECIALS = (b"<|im_start|>", b"<|im_end|>")
BOS, EOS = 256, 257
VOCABULARY = 258
FIRST_LETTER = ord("a")
LETTERS = 26
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SPECIAL = re.compile(b"(" + b"|".join(map(re.escape, SPECIALS)) + b")")


class LetterTokenizer:
    """One token per byte, and two special ones."""

    def encode(self, text: str, /) -> list[int]:
        tokens: list[int] = []
        for part in _SPECIAL.split(text.encode()):
            tokens += [SPECIALS.index(part) + BOS] if part in SPECIALS else part
        return tokens

    def encode_plain(self, text: str, /) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: Sequence[int], /) -> str:
        unknown = [token for token in tokens if token >= VOCABULARY]
        if unknown:
            raise GuestError(f"detokenize: {unknown[0]} is not a token id (X2)")
        parts = (SPECIALS[t - BOS] if t >= BOS else bytes((t,)) for t in tokens)
        return b"".join(parts).decode("utf-8", "replace")

    def vocabulary(self) -> tuple[list[int], list[bytes]]:
        return list(range(256)), [bytes((byte,)) for byte in range(256)]

    def special_tokens(self) -> tuple[list[int], list[bytes]]:
        return [BOS, EOS], list(SPECIALS)

    def split_regex(self) -> str:
        return "."


def letter_info(
    name: str,
    *,
    pages: int,
    page_size: int,
    context_length: int,
    embedding_slots: int,
    description: str,
    fingerprint: Callable[[], str],
) -> ModelInfo:
    """What a simulated model says of itself."""
    return ModelInfo(
        name=name,
        tokenizer=LetterTokenizer(),
        vocabulary=VOCABULARY,
        context_length=context_length,
        page_size=page_size,
        pages=pages,
        embedding_slots=embedding_slots,
        fingerprint=fingerprint,
        description=description,
        prompt_template=TEMPLATE,
        stop_tokens=("<|im_end|>",),
    )


def outputs_of(batch: Batch, best: NDArray[np.int64], *, fixed: bool = False) -> BatchResult:
    """All outputs of a batch whose rows have the `best` next tokens: [rows].

    The best token has probability 1/2, the letters after it (in a circle, from `a` if it is no
    letter) 1/4, 1/8 and so on. A token is drawn among those kept by top-k, top-p and min-p, each as
    likely as the other. With `fixed`, it is always the best.
    """
    tokens = best[batch.sampled_rows]
    if not fixed:
        letter = np.clip(tokens - FIRST_LETTER, 0, LETTERS - 1)
        shift = np.floor(batch.uniform.astype(np.float64) * _kept(batch)).astype(np.int64)
        tokens = np.where(shift > 0, FIRST_LETTER + (letter + shift) % LETTERS, tokens)
    ranked = [
        _distribution(int(best[row]), int(k))
        for row, k in zip(batch.ranked_rows, batch.ranked_k, strict=True)
    ]
    return BatchResult(
        tokens=tokens.astype(np.int32),
        sampled_finite=np.ones(len(tokens), dtype=np.bool_),
        ranked_ids=ints([token for ids in ranked for token in ids]),
        ranked_probabilities=floats([2.0 ** -(i + 1) for ids in ranked for i in range(len(ids))]),
        ranked_starts=ints([0, *np.cumsum([len(ids) for ids in ranked], dtype=int).tolist()]),
        ranked_finite=np.ones(len(ranked), dtype=np.bool_),
    )


def _kept(batch: Batch) -> NDArray[np.int64]:
    """[sampled] how many of the letters, best first, the sampling settings leave."""
    top_k = np.where(batch.top_k > 0, batch.top_k, LETTERS)
    with np.errstate(divide="ignore"):
        # The first n hold 1 - 2^-n; letter i is 2^-i times as likely as the best.
        top_p = np.ceil(-np.log2(np.clip(1 - batch.top_p.astype(np.float64), 0, 1)))
        min_p = np.floor(-np.log2(np.clip(batch.min_p.astype(np.float64), 0, 1))) + 1
    kept = np.minimum(np.minimum(top_k, top_p), min_p)
    kept[batch.temperature == 0] = 1
    clipped: NDArray[np.int64] = np.clip(kept, 1, LETTERS).astype(np.int64)
    return clipped


def _distribution(best: int, k: int) -> list[int]:
    """The best token, the letters after it, then all other tokens by id."""
    at = best - FIRST_LETTER if FIRST_LETTER <= best < FIRST_LETTER + LETTERS else 0
    letters = [FIRST_LETTER + (at + i) % LETTERS for i in range(LETTERS)]
    others = [t for t in range(VOCABULARY) if not FIRST_LETTER <= t < FIRST_LETTER + LETTERS]
    return list(dict.fromkeys([best, *letters, *others]))[:k]


def hidden_slots(batch: Batch) -> dict[int, NDArray[np.int64]]:
    """Masked row -> the logical slots that its mask hides."""
    hidden = {}
    for row, first, end in zip(
        batch.masked_rows.tolist(), batch.mask_starts[:-1], batch.mask_starts[1:], strict=True
    ):
        runs = batch.mask_runs[first:end]
        hidden[row] = np.flatnonzero(np.repeat(np.arange(len(runs)) % 2 == 1, runs))
    return hidden
