"""Text from tokens that are parts of characters."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from inferlet.text import TextDecoder

from tests.sdk.driving import finish


class Bytes:
    """One token per byte."""

    async def detokenize(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode(errors="replace")


def decoded(chunks: list[bytes]) -> list[str]:
    decoder = TextDecoder(Bytes())
    return [*(finish(decoder.add(list(chunk))) for chunk in chunks), decoder.finish()]


def test_an_incomplete_character_is_held_back() -> None:
    euro = "€".encode()
    assert decoded([b"a", euro[:1], euro[1:2], euro[2:], b"b"]) == ["a", "", "", "€", "b", ""]


def test_what_never_becomes_a_character_comes_at_the_end() -> None:
    assert decoded([b"a\xe2\x82"]) == ["a", "\N{REPLACEMENT CHARACTER}"]


@given(st.text(), st.lists(st.integers(1, 9)))
def test_pieces_join_to_the_text(text: str, sizes: list[int]) -> None:
    """Also over many windows, and where the text itself has replacement characters."""
    data = text.encode()
    chunks = []
    for size in [*sizes, len(data) or 1]:
        chunks.append(data[:size])
        data = data[size:]
    assert "".join(decoded(chunks)) == text


@given(st.binary(max_size=80))
def test_any_bytes_give_what_decoding_at_once_gives(data: bytes) -> None:
    pieces = decoded([bytes([byte]) for byte in data])
    assert "".join(pieces) == data.decode(errors="replace")
