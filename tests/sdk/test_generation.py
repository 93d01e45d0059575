"""Generating: what is given out, when, and why it ends."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from inferlet import Context, Generation, Stop, get_model, max_tokens, stop_text, stop_tokens

from tests.sdk.scripted import END, ScriptedHost, hosted


async def stream(
    script: Sequence[int], stop: Stop | None = None, *, ignore_eos: bool = False
) -> tuple[list[str], Generation]:
    with hosted(ScriptedHost(script=script)):
        context = await Context.create(await get_model())
        await context.fill("prompt")
        generation = context.stream(stop=stop, ignore_eos=ignore_eos)
        pieces = [piece async for piece in generation]
        assert "".join(pieces) == generation.text
        assert context.tokens == [*b"prompt", *generation.tokens]
        assert context.pending == 1
        return pieces, generation


async def test_the_end_of_a_turn_ends_generation_and_is_no_text() -> None:
    pieces, generation = await stream([*b"hi", END, *b"more"])
    assert pieces == ["h", "i"]
    assert generation.tokens == [*b"hi", END]
    assert generation.finish_reason == "stop"


async def test_a_benchmark_can_ignore_the_end_of_a_turn() -> None:
    pieces, generation = await stream([*b"hi", END, *b"more"], max_tokens(5), ignore_eos=True)
    assert pieces == ["h", "i", "<|end|>", "m", "o"]
    assert generation.finish_reason == "max_tokens"


async def test_text_that_may_become_a_stop_is_held_back() -> None:
    pieces, generation = await stream(b"a\n\nb", stop_text("\n\n"))
    assert (pieces, generation.finish_reason) == (["a"], "stop")
    pieces, generation = await stream([*b"a\nb", END], stop_text("\n\n"))
    assert pieces == ["a", "\nb"]


async def test_tokens_that_may_become_a_stop_are_held_back() -> None:
    pieces, generation = await stream(b"axyz", stop_tokens(b"xyz"))
    assert (pieces, generation.tokens) == (["a"], [*b"axyz"])
    pieces, _ = await stream([*b"axyb", END], stop_tokens(b"xyz"))
    assert pieces == ["a", "xyb"]


async def test_what_is_held_back_is_given_out_at_the_limit() -> None:
    pieces, generation = await stream(b"ax", stop_text("xy") | max_tokens(2))
    assert (pieces, generation.finish_reason) == (["a", "x"], "max_tokens")
    pieces, _ = await stream("a€".encode()[:3], max_tokens(3))
    assert pieces == ["a", "\N{REPLACEMENT CHARACTER}"]


async def test_a_character_of_several_tokens_comes_whole() -> None:
    pieces, _ = await stream([*"né€🙂".encode(), END])
    assert pieces == ["n", "é", "€", "🙂"]


async def test_a_text_stop_wins_over_the_limit_of_the_same_token() -> None:
    _, generation = await stream(b"ab", stop_text("b") | max_tokens(2))
    assert (generation.text, generation.finish_reason) == ("a", "stop")


async def test_a_step_makes_only_the_calls_it_needs() -> None:
    """No mask where it is causal, one getter, one wait: each call costs microseconds."""
    with hosted(ScriptedHost(script=b"ab")) as host:
        context = await Context.create(await get_model())
        await context.fill("prompt")
        await context.generate(max_tokens=1)
        host.calls.clear()
        await context.generate(max_tokens=1, ignore_eos=True)
    assert host.calls == [
        "create-forward-pass",
        "input-tokens",
        "kv-cache",
        "output-tokens",
        "[method]forward-pass.execute",
        "[method]forward-pass-result.pollable",
        "poll",
        "[method]forward-pass-result.get-tokens",
        "[method]tokenizer.detokenize",
    ]


async def test_a_limit_below_one_is_refused() -> None:
    with hosted(ScriptedHost()):
        context = await Context.create(await get_model())
        with pytest.raises(ValueError, match="limit of 0 tokens"):
            context.stream(max_tokens=0)
