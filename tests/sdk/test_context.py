"""Contexts: slots, pages, forks, masks. The scripted host has pages of 4 tokens."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inferlet import Context, Failure, Greedy, get_model

from tests.sdk.driving import finish
from tests.sdk.scripted import Pass, ScriptedHost, hosted


async def a_context(text: str = "") -> Context:
    context = await Context.create(await get_model())
    await context.fill(text)
    return context


async def test_pending_tokens_are_computed_in_one_pass() -> None:
    with hosted(ScriptedHost(script=b"x")) as host:
        context = await a_context("abcdef")
        await context.step(Greedy())
    made = host.passes[0]
    assert (made.tokens, made.positions) == ([*b"abcdef"], [*range(6)])
    assert (made.pages, made.last_length, made.mask) == ([0, 1], 2, None)


async def test_a_full_last_page_has_its_whole_length() -> None:
    with hosted(ScriptedHost()) as host:
        await (await a_context("abcdefgh")).flush()
    assert host.passes == [Pass([*b"abcdefgh"], [*range(8)], [0, 1], 4)]


async def test_a_flush_does_not_wait() -> None:
    with hosted(ScriptedHost()) as host:
        await (await a_context("abc")).flush()
    assert "poll" not in host.calls


async def test_a_fork_shares_all_pages_until_it_writes_to_the_partial_one() -> None:
    with hosted(ScriptedHost()) as host:
        parent = await a_context("abcdef")
        await parent.flush()
        child = await parent.fork()
        assert (child.pointers, child.pending) == (parent.pointers, 0)
        child.fill_tokens(b"g")
        await child.flush()
        assert host.shared == [(1, 2)]
        parent.fill_tokens(b"h")
        await parent.flush()
    assert host.passes[1] == Pass([*b"g"], [6], [0, 2], 3)
    assert host.passes[2] == Pass([*b"h"], [6], [0, 1], 3), "nobody else lists the page any more"
    assert len(host.shared) == 1


async def test_a_fork_does_not_wait_for_what_is_drawn_ahead_into_the_partial_page() -> None:
    with hosted(ScriptedHost(script=b"xyz")) as host:
        parent = await a_context("abcde")
        async for _ in parent.stream(max_tokens=3, sampler=Greedy(), ignore_eos=True):
            child = await parent.fork()
            assert (child.pointers, child.pending) == (parent.pointers, 1)
            break
    assert host.calls.count("[method]decoding.cancel") == 1


async def test_a_fork_at_a_page_boundary_shares_everything() -> None:
    with hosted(ScriptedHost(script=b"xy")) as host:
        parent = await a_context("abcdefgh")
        await parent.flush()
        child = await parent.fork()
        assert (child.pending, child.pointers) == (0, [0, 1])
        await child.step(Greedy())
    assert host.passes[1] == Pass([*b"h"], [7], [0, 2], 4, outputs=[("tokens", [0], 0.0)])
    assert host.shared == [(1, 2)]


async def test_without_pending_tokens_the_last_is_computed_again() -> None:
    with hosted(ScriptedHost(script=b"x")) as host:
        context = await a_context("abcde")
        await context.flush()
        await context.step(Greedy())
    assert host.passes[1].tokens == [*b"e"]
    assert (host.passes[1].pages, host.passes[1].last_length) == ([0, 1], 1)


async def test_an_empty_context_has_no_next_token() -> None:
    with hosted(ScriptedHost()):
        context = await a_context()
        with pytest.raises(ValueError, match="a forward pass needs a token"):
            await context.step(Greedy())


async def test_shared_pages_are_freed_with_the_last_context() -> None:
    with hosted(ScriptedHost()) as host:
        parent = await a_context("abcdefgh")
        await parent.flush()
        child = await parent.fork()
        await parent.release()
        assert host.pages == {0, 1}
        await child.release()
        assert host.pages == set()
        assert {each.kind for each in host.live} == {"model", "tokenizer"}


async def test_a_forgotten_context_frees_its_pages_at_the_next_allocation() -> None:
    with hosted(ScriptedHost()) as host:
        model = await get_model()
        context = await Context.create(model)
        context.fill_tokens(b"abcdefgh")
        await context.flush()
        del context
        gc.collect()
        other = await Context.create(model)
        other.fill_tokens(b"a")
        await other.flush()
        assert host.pages == {0}


async def test_hidden_tokens_are_masked_from_later_ones_only() -> None:
    with hosted(ScriptedHost()) as host:
        context = await a_context("ab")
        context.mask_tokens(0, 1)
        context.fill_tokens(b"cd")
        await context.flush()
        context.mask_tokens(0, 1, hidden=False)
        context.fill_tokens(b"e")
        await context.flush()
    assert host.passes[0].mask == [[1], [2], [0, 1, 2], [0, 1, 3]]
    assert host.passes[1].mask is None


async def test_masked_pages_are_dropped_and_positions_count_on() -> None:
    with hosted(ScriptedHost()) as host:
        context = await a_context("abcdefghij")
        await context.flush()
        context.mask_tokens(3, 9)
        assert await context.drop_masked_pages() == 4
        assert bytes(context.tokens) == b"abcdij"
        assert (context.pointers, host.pages) == ([0, 2], {0, 2})
        context.fill_tokens(b"k")
        await context.flush()
    assert host.passes[1] == Pass([*b"k"], [10], [0, 2], 3, mask=[[3, 2, 2]])


async def test_a_fork_computes_masked_tokens_under_their_masks() -> None:
    with hosted(ScriptedHost()) as host:
        parent = await a_context("abcd")
        parent.mask_tokens(0, 2)
        parent.fill_tokens(b"ef")
        child = await parent.fork()
        parent.mask_tokens(0, 4)
        await child.flush()
    assert host.passes[0].mask == [[1], [2], [3], [4], [0, 2, 3], [0, 2, 4]]


async def test_rewinding_writes_over_what_was_there() -> None:
    with hosted(ScriptedHost()) as host:
        context = await a_context("abcdef")
        await context.flush()
        context.rewind(3)
        context.fill_tokens(b"xy")
        await context.flush()
    assert host.passes[1] == Pass([*b"xy"], [3, 4], [0, 1], 1)
    assert host.pages == {0, 1}


async def test_rewinding_into_a_shared_page_leaves_it_to_the_others() -> None:
    """What it still has of the page is not computed again."""
    with hosted(ScriptedHost()) as host:
        parent = await a_context("abcd")
        await parent.flush()
        child = await parent.fork()
        child.rewind(2)
        child.fill_tokens(b"x")
        await child.flush()
    assert parent.pointers == [0]
    assert host.shared == [(0, 1)]
    assert host.passes[1] == Pass([*b"x"], [2], [1], 3)


async def test_an_unknown_model_is_a_failure_that_names_the_others() -> None:
    with hosted(ScriptedHost()), pytest.raises(Failure, match="no model 'x'; loaded: first, sec"):
        await get_model("x")


STEPS = st.lists(
    st.tuples(st.sampled_from(["fill", "flush", "fork", "rewind", "release"]), st.integers(0, 9)),
    min_size=8,
    max_size=30,
)


@settings(deadline=None)
@given(STEPS)
def test_pages_hold_what_their_contexts_think(steps: list[tuple[str, int]]) -> None:
    """Every slot a context counts as written holds its token, whatever the others did."""
    host = ScriptedHost(page_size=4)
    slots: dict[tuple[int, int], int] = {}
    with hosted(host):
        contexts = [finish(a_context())]
        for number, (action, amount) in enumerate(steps):
            context = contexts[amount % len(contexts)]
            _act(contexts, context, action, amount, fill=number % 256)
            for shared, copy in host.shared:
                for slot in range(4):
                    if (shared, slot) in slots:
                        slots[copy, slot] = slots[shared, slot]
            host.shared.clear()
            for made in host.passes:
                length = (len(made.pages) - 1) * 4 + made.last_length
                for index, token in enumerate(made.tokens):
                    slot = length - len(made.tokens) + index
                    slots[made.pages[slot // 4], slot % 4] = token
            host.passes.clear()
            for each in contexts:
                written = len(each.tokens) - each.pending
                assert len(each.pointers) == -(-written // 4)
                for slot in range(written):
                    assert slots[each.pointers[slot // 4], slot % 4] == each.tokens[slot]
        for each in contexts:
            finish(each.release())
    assert host.pages == set()


def _act(contexts: list[Context], context: Context, action: str, amount: int, fill: int) -> None:
    if action == "fill":
        context.fill_tokens([fill] * amount)
        if amount % 2:
            finish(context.flush())
    elif action == "flush":
        finish(context.flush())
    elif action == "fork":
        contexts.append(finish(context.fork()))
    elif action == "rewind":
        context.rewind(min(amount, len(context.tokens)))
    elif len(contexts) > 1:
        contexts.remove(context)
        finish(context.release())
