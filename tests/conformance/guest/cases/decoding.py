"""`decode` of `pie:ext`: steps that follow each other without the guest."""

from __future__ import annotations

from typing import Any

from .case import PAGE, Guest, case
from .forward import begin

DRAWN = "rpcrhggnmxbrzqcuyhivx"
"""What single passes and a decoding draw at a temperature."""


async def a_decoding(
    guest: Guest,
    queue: Any,
    pages: list[int],
    *,
    steps: int = 5,
    stops: list[int] | None = None,
    growth: list[int] | None = None,
    temperature: float = 0.0,
    length: int = 1,
) -> Any:
    """Steps after `length` inputs, 65 and so on."""
    inputs = list(range(65, 65 + length))
    built = await guest.a_pass(queue, inputs, pages, length)
    await guest.do("output-tokens", built, [length - 1], temperature)
    return await guest.do("decode", built, steps, stops or [], growth or [])


async def all_of(guest: Guest, decoding: Any) -> list[int]:
    """Its tokens, once it is over."""
    pollable = await guest.do("decoding.ended", decoding)
    await guest.do("pollable.block", pollable)
    guest.drop(pollable)
    tokens, last = await guest.do("decoding.get", decoding, 1000)
    assert last
    return list(tokens)


@case(returns=["utrhp", [], True])
async def decoding_is_greedy_decoding(guest: Guest) -> Any:
    """Contract X10: what `greedy_decoding` gives, token by token."""
    queue, pages = await begin(guest)
    decoding = await a_decoding(guest, queue, pages)
    text, last = "", False
    while not last:
        await guest.wait("decoding", decoding)
        tokens, last = await guest.do("decoding.get", decoding, 1)
        text += "".join(map(chr, tokens))
    return [text, *await guest.do("decoding.get", decoding, 1)]


@case(returns=[[1, 2, 2, 0, 0], "utrhp"])
async def decoding_gives_its_next_tokens(guest: Guest) -> Any:
    """Contract X10: waiting for one, and then all that are there, up to as many as asked for."""
    queue, pages = await begin(guest)
    decoding = await a_decoding(guest, queue, pages)
    first = await guest.do("decoding.next", decoding, 1)
    ended = await guest.do("decoding.ended", decoding)
    await guest.do("pollable.block", ended)
    guest.drop(ended)
    parts = [first, *[await guest.do("decoding.next", decoding, 2) for _ in range(4)]]
    return [[len(part) for part in parts], "".join(chr(token) for part in parts for token in part)]


@case(returns=DRAWN)
async def single_passes_draw(guest: Guest) -> Any:
    """Contract S3: what the next case is compared with."""
    queue, pages = await begin(guest, 2)
    tokens = [65]
    for length in range(1, 22):
        built = await guest.a_pass(queue, tokens[-1:], pages, length)
        await guest.do("output-tokens", built, [0], 2.0)
        tokens += await guest.do("forward-pass-result.get-tokens", await guest.run(built))
    return "".join(map(chr, tokens[1:]))


@case(returns=DRAWN)
async def decoding_draws_what_single_passes_draw(guest: Guest) -> Any:
    """Contract X10, S3: over a page that is growth, and so does the pass that comes after it."""
    queue, pages = await begin(guest, 2)
    decoding = await a_decoding(
        guest, queue, pages[:1], steps=20, growth=pages[1:], temperature=2.0
    )
    found = await all_of(guest, decoding)
    built = await guest.a_pass(queue, found[-1:], pages, 21)
    await guest.do("output-tokens", built, [0], 2.0)
    found += await guest.do("forward-pass-result.get-tokens", await guest.run(built))
    return "".join(map(chr, found))


@case(returns=["utr", "hp"])
async def decoding_ends_after_a_stop_token(guest: Guest) -> Any:
    """Contract X10."""
    queue, pages = await begin(guest)
    found = await all_of(guest, await a_decoding(guest, queue, pages, stops=[1, ord("r")]))
    built = await guest.a_pass(queue, [ord("r")], pages, 4)
    await guest.do("output-tokens", built, [0], 0.0)
    rest = await all_of(guest, await guest.do("decode", built, 2, [], []))
    return ["".join(map(chr, found)), "".join(map(chr, rest))]


@case(returns=[[], False, "ut", [], True, True])
async def decoding_can_be_cancelled(guest: Guest) -> Any:
    """Contract X10, Q2: nothing more comes, and its queue is free."""
    queue, pages = await begin(guest)
    decoding = await a_decoding(guest, queue, pages, steps=16)
    seen = [*await guest.do("decoding.get", decoding, 9)]
    text = ""
    while len(text) < 2:
        await guest.wait("decoding", decoding)
        tokens, _ = await guest.do("decoding.get", decoding, 1)
        text += "".join(map(chr, tokens))
    await guest.do("decoding.cancel", decoding)
    await guest.do("decoding.cancel", decoding)
    assert not await guest.do("decoding.next", decoding, 9)
    seen += [text, *await guest.do("decoding.get", decoding, 9)]
    return [*seen, await guest.settled(queue)]


@case(returns=[True, True])
async def decoding_that_is_dropped_ends(guest: Guest) -> Any:
    """Contract X10, R10: also what waits behind it goes on."""
    queue, pages = await begin(guest)
    guest.drop(await a_decoding(guest, queue, pages, steps=16))
    after = await guest.fed(queue, [65, 66], pages, 2)
    other = await guest.queue()
    return [len(after) == 3, after == await guest.fed(other, [65, 66], pages, 2)]


@case(traps="decode: 0 steps are asked for, it takes at least 1 (X10)")
async def decoding_no_steps_traps(guest: Guest) -> Any:
    """Contract X10."""
    queue, pages = await begin(guest)
    await a_decoding(guest, queue, pages, steps=0)


@case(
    traps="decode: 18 steps end at 18 KV slots, 1 pages and 0 of growth have 16 (X10)",
)
async def decoding_beyond_the_pages_traps(guest: Guest) -> Any:
    """Contract X10, K1."""
    queue, pages = await begin(guest)
    await a_decoding(guest, queue, pages, steps=18)


@case(traps="decode: stop token 999 is not below the model's 258 (X10)")
async def decoding_with_an_unknown_stop_token_traps(guest: Guest) -> Any:
    """Contract X10."""
    queue, pages = await begin(guest)
    await a_decoding(guest, queue, pages, stops=[999])


@case(traps="decode: pointer 7 is not held by this instance (R1)")
async def decoding_into_an_unknown_page_traps(guest: Guest) -> Any:
    """Contract X10, R1."""
    queue, pages = await begin(guest)
    await a_decoding(guest, queue, pages, growth=[7])


@case(traps="decode: page 0 is written and listed twice (K2)")
async def decoding_into_a_page_twice_traps(guest: Guest) -> Any:
    """Contract X10, K2."""
    queue, pages = await begin(guest)
    await a_decoding(guest, queue, pages, steps=20, growth=pages)


@case(
    traps="decode: the pass has to ask for one token, after its last input 1, and nothing else "
    "(X10)"
)
async def decoding_from_another_input_traps(guest: Guest) -> Any:
    """Contract X10."""
    queue, pages = await begin(guest)
    built = await guest.a_pass(queue, [65, 66], pages, 2)
    await guest.do("output-tokens", built, [0], 0.0)
    await guest.do("decode", built, 2, [], [])


@case(traps="decode: this pass has been executed already (F5)")
async def decoding_an_executed_pass_traps(guest: Guest) -> Any:
    """Contract X10, F5."""
    queue, pages = await begin(guest)
    built = await guest.a_pass(queue, [65], pages, 1)
    await guest.do("output-tokens", built, [0], 0.0)
    await guest.run(built)
    await guest.do("decode", built, 2, [], [])


@case(
    limits={"max_result_entries": 9},
    traps="decode: 10 tokens and distribution entries are asked for and not taken, the limit is 9",
)
async def decoding_more_than_may_be_left_untaken_traps(guest: Guest) -> Any:
    """Contract R9, X10: what was taken, and what a cancelled one had left, counts no more."""
    queue, pages = await begin(guest)
    await all_of(guest, await a_decoding(guest, queue, pages, steps=9))
    decoding = await a_decoding(guest, queue, pages, steps=9)
    await guest.do("decoding.cancel", decoding)
    assert await guest.settled(queue)
    (more,) = await guest.do("allocate-resources", queue, PAGE, 1)
    await a_decoding(guest, queue, [more], steps=10)
