"""How byte-level tokenizers of GGUF files cut a text before they merge.

A file only names its rule; the regexes are those of the models' own tokenizers.
"""

from __future__ import annotations

GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Digits are cut out one by one first, GPT-2's rule then sees what is between them: so a digit
# ends a run of spaces as the end of the text does.
_DIGITS_THEN_GPT2 = (
    r"\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
)
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

SPLITS = {
    "default": GPT2_SPLIT,
    "gpt-2": GPT2_SPLIT,
    "smollm": _DIGITS_THEN_GPT2,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "smaug-bpe": _LLAMA3,  # also SmolLM3
    "dbrx": _LLAMA3,  # also OLMo 2
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
}
"""The splitting rule of each `tokenizer.ggml.pre`."""

WHOLE_WORDS = frozenset({"llama-bpe", "llama3", "llama-v3"})
"""Rules of tokenizers that take a piece that is a token as it is, whatever the merges say."""

COMPOSED = frozenset({"qwen2", "deepseek-r1-qwen"})
"""Rules of tokenizers that bring texts into Unicode's composed form first."""
