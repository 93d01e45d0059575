"""Tokenizers from either format (contract X2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
)
from tokenizers import (
    Tokenizer as Encoder,
)

from pie.batch import Tokenizer
from pie.errors import GuestError, ModelError
from pie.model.loaders.gguf_file import read_gguf
from pie.model.splits import SPLITS
from pie.model.tokenizer import byte_alphabet, tokenizer_from_gguf
from pie.model.tokenizer_json import tokenizer_from_json
from tests.model.tiny import MERGES, SPECIALS, TOKENS, hf_tokenizer
from tests.model_file import smollm2_path


@pytest.fixture(scope="session")
def real() -> Tokenizer:
    path = smollm2_path()
    return tokenizer_from_gguf(read_gguf(path).metadata, str(path))


def metadata(**changes: Any) -> dict[str, Any]:
    facts = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": TOKENS,
        "token_type": [3] * len(SPECIALS) + [1] * (len(TOKENS) - len(SPECIALS)),
        "merges": [" ".join(pair) for pair in MERGES],
        **changes,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in facts.items() if value is not None}


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs", "Cc", "Co", "Cn"]), max_size=40))
def test_text_without_missing_bytes_comes_back(real: Tokenizer, text: str) -> None:
    ids = real.encode(text)
    if 0 not in ids:
        assert real.decode(ids) == text


@pytest.mark.slow
def test_a_byte_without_a_token_becomes_the_unknown_token(real: Tokenizer) -> None:
    """SmolLM2 lacks 21 bytes, 0x04 and 0xF5 among them."""
    assert real.encode("a\x04b") == [*real.encode("a"), 0, *real.encode("b")]


@pytest.mark.slow
def test_special_tokens_in_text_are_recognised(real: Tokenizer) -> None:
    assert real.encode("<|im_start|>user<|im_end|>") == [1, 4093, 2]
    assert real.decode([1, 4093, 2]) == "<|im_start|>user<|im_end|>"


@pytest.mark.slow
def test_digits_are_tokens_of_their_own(real: Tokenizer) -> None:
    assert len(real.encode("2026")) == 4
    # A run of spaces before a digit is one piece, not "all but one" as before a letter.
    pieces = [real.decode([token]) for token in real.encode("x    7")]
    assert pieces == ["x", "    ", "7"]


@pytest.mark.slow
def test_vocabulary_and_specials_share_out_all_tokens(real: Tokenizer) -> None:
    ids, forms = real.vocabulary()
    special_ids, special_forms = real.special_tokens()
    assert special_ids == list(range(17))
    assert special_forms[:3] == [b"<|endoftext|>", b"<|im_start|>", b"<|im_end|>"]
    assert sorted([*ids, *special_ids]) == list(range(49152))
    assert forms[ids.index(253)] == "Ġa".encode()


@pytest.mark.slow
def test_a_partial_character_is_a_replacement_character(real: Tokenizer) -> None:
    ids = real.encode("🦜")
    assert len(ids) > 1
    assert real.decode(ids) == "🦜"
    assert set(real.decode(ids[:1])) == {"\ufffd"}
    assert real.decode([]) == ""


@pytest.mark.slow
@pytest.mark.parametrize("token", [49152, -1, 2**31])
def test_an_unknown_id_is_the_guests_mistake(real: Tokenizer, token: int) -> None:
    with pytest.raises(GuestError, match=f"token {token} is not in the vocabulary of 49152"):
        real.decode([1, token])


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.sampled_from("ab 1²٣\n\t'sĠ.,!é"), max_size=16))
def test_one_rule_splits_as_digits_and_gpt2_do_one_after_the_other(text: str) -> None:
    """The training-time pre-tokenizer of SmolLM2 is that sequence."""
    both = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(Regex(SPLITS["gpt-2"]), "isolated"),
        ]
    )
    one = pre_tokenizers.Split(Regex(SPLITS["smollm"]), "isolated")
    assert one.pre_tokenize_str(text) == both.pre_tokenize_str(text)


def test_both_formats_describe_the_same_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    hf_tokenizer().save(str(path))
    one, other = tokenizer_from_json(path), tokenizer_from_gguf(metadata(), "test")
    text = "hello world<|im_end|> hell 12\u2028 é"
    assert one.encode(text) == other.encode(text)
    assert one.decode(one.encode(text)) == text
    assert one.vocabulary() == other.vocabulary()
    assert (
        one.special_tokens() == other.special_tokens() == ([0, 1], [s.encode() for s in SPECIALS])
    )
    assert one.split_regex() == other.split_regex()


def test_merges_apply_within_the_pieces_of_the_rule() -> None:
    tokenizer = tokenizer_from_gguf(metadata(), "test")
    pieces = [TOKENS[token] for token in tokenizer.encode("hell world")]
    assert pieces == ["hell", "Ġw", "o", "r", "l", "d"]
    llama3 = tokenizer_from_gguf(metadata(pre="llama-bpe"), "test")
    assert r"\p{N}{1,3}" in llama3.split_regex()


def test_qwen2_composes_characters_first() -> None:
    tokenizer = tokenizer_from_gguf(metadata(pre="qwen2"), "test")
    assert tokenizer.encode("e\u0301") == tokenizer.encode("é")


SENTENCEPIECE = {
    "<unk>": (0.0, 2), "<s>": (0.0, 3), "</s>": (0.0, 3), "<0x0A>": (0.0, 6), "<0xC3>": (0.0, 6),
    "<0xA9>": (0.0, 6), "▁": (-9.0, 1), "a": (-9.1, 1), "b": (-9.2, 1), "c": (-9.3, 1),
    "ab": (-2.0, 1), "bc": (-1.0, 1), "▁a": (-3.0, 1), "abc": (-4.0, 1), "▁ab": (-5.0, 1),
}  # fmt: skip


def sentencepiece(**changes: Any) -> Tokenizer:
    scores, types = zip(*SENTENCEPIECE.values(), strict=True)
    facts = metadata(
        model="llama",
        pre=None,
        merges=None,
        tokens=list(SENTENCEPIECE),
        scores=list(scores),
        token_type=list(types),
        unknown_token_id=0,
        **changes,
    )
    return tokenizer_from_gguf(facts, "test")


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("abc", ["▁a", "bc"]),  # "bc" has the best score, then "▁a"
        ("ab", ["▁ab"]),
        ("a\nb", ["▁a", "<0x0A>", "b"]),
        ("é", ["▁", "<0xC3>", "<0xA9>"]),
        ("c z", ["▁", "c", "▁", "<unk>"]),
    ],
)
def test_a_sentencepiece_vocabulary_merges_the_best_score_first(
    text: str, pieces: list[str]
) -> None:
    assert sentencepiece().encode(text) == [list(SENTENCEPIECE).index(p) for p in pieces]


def test_a_sentencepiece_token_has_one_text_wherever_it_stands() -> None:
    tokenizer = sentencepiece()
    assert tokenizer.decode(tokenizer.encode("ab é")) == " ab é"
    assert tokenizer.decode([1, 8]) == "<s>b"
    assert sentencepiece(add_space_prefix=False).encode("ab") == [10]
    assert tokenizer.split_regex() == ""


def test_a_tokenizer_like_gemmas_knows_its_turns(tmp_path: Path) -> None:
    """SentencePiece pieces in tokenizer.json: bytes for what has no piece, no space before."""
    pieces = ["<pad>", "<eos>", "<bos>", "▁", "a", "b", "ab", "▁ab", "\n", "\n\n"]
    pieces += [f"<0x{byte:02X}>" for byte in range(256)]
    merges = [("a", "b"), ("▁", "ab"), ("\n", "\n")]
    vocabulary = {piece: token for token, piece in enumerate(pieces)}
    encoder = Encoder(
        models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, fuse_unk=True)
    )
    encoder.normalizer = normalizers.Replace(" ", "▁")
    encoder.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    encoder.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    turns = ["<start_of_turn>", "<end_of_turn>"]
    specials = ["<pad>", "<eos>", "<bos>", *turns]
    encoder.add_special_tokens([AddedToken(text, normalized=False) for text in specials])
    encoder.save(str(tmp_path / "tokenizer.json"))
    tokenizer = tokenizer_from_json(tmp_path / "tokenizer.json")
    text = "<bos><start_of_turn>ab ab\n\né<end_of_turn>\n"
    ids = tokenizer.encode(text)
    assert [ids[i] for i in (0, 1, -2)] == [2, len(pieces), len(pieces) + 1]
    names = ["ab", "▁ab", "\n\n", "<0xC3>", "<0xA9>"]
    assert ids[2:-2] == [vocabulary[name] for name in names]
    assert tokenizer.decode(ids) == text
    assert tokenizer.split_regex() == ""


def test_llama_3_takes_a_piece_that_is_a_token_as_it_is() -> None:
    """The rules that cut alike do not all merge alike: SmolLM3's and OLMo 2's go by the merges."""
    tokens = [*TOKENS, "hello"]  # reachable by no merge
    types = [3] * len(SPECIALS) + [1] * (len(tokens) - len(SPECIALS))
    for pre, count in (("llama-bpe", 1), ("smaug-bpe", 2), ("dbrx", 2)):
        facts = metadata(pre=pre, tokens=tokens, token_type=types)
        assert len(tokenizer_from_gguf(facts, "test").encode("hello")) == count


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "bert"}, "tokenizer 'bert' is not supported"),
        ({"pre": "tekken"}, "pre-tokenizer 'tekken' is not supported"),
        ({"merges": ["h e", "xyz q"]}, "1 merges use pieces that are no tokens"),
        ({"merges": ["he"]}, "1 merges are not two pieces"),
        ({"tokens": None}, "tokenizer.ggml.tokens is missing"),
        ({"tokens": TOKENS[:-1] + TOKENS[:1]}, "the vocabulary is damaged"),
        ({"tokens": ["a"], "token_type": [1], "merges": []}, "255 bytes have no token"),
        ({"model": "llama"}, "0 scores for"),
    ],
)
def test_a_damaged_or_unknown_vocabulary_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        tokenizer_from_gguf(metadata(**changes), "test.gguf")


def test_a_damaged_tokenizer_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(ModelError, match="cannot be read"):
        tokenizer_from_json(path)
    path.write_text("{")
    with pytest.raises(ModelError, match="not JSON"):
        tokenizer_from_json(path)
    path.write_text('{"model": null}')
    with pytest.raises(ModelError, match="not a tokenizer"):
        tokenizer_from_json(path)


def test_the_byte_alphabet_names_every_byte_once() -> None:
    assert sorted(byte_alphabet().values()) == list(range(256))
