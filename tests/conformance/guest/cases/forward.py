"""`inferlet:core/forward`: inputs, masks, outputs and results."""

from __future__ import annotations

from typing import Any

from .case import PAGE, SLOT, Guest, case

LETTERS = list(range(97, 123))
"""What the simulated model samples."""


async def begin(guest: Guest, pages: int = 1) -> tuple[Any, list[int]]:
    """A queue, and some pages."""
    queue = await guest.queue()
    return queue, list(await guest.do("allocate-resources", queue, PAGE, pages))


@case(returns=[None, False, True, 1, [], [], []])
async def tokens_are_taken_once(guest: Guest) -> Any:
    """Contract F6, X5: none while pending; a kind without slots is an empty list."""
    queue, pages = await begin(guest)
    built = await guest.a_pass(queue, [65, 66], pages, 2)
    await guest.do("output-tokens", built, [1], 0.0)
    result = await guest.do("forward-pass.execute", built)
    pollable = await guest.do("forward-pass-result.pollable", result)
    seen: list[Any] = [await guest.do("forward-pass-result.get-tokens", result)]
    seen.append(await guest.do("pollable.ready", pollable))
    await guest.do("pollable.block", pollable)
    seen.append(await guest.do("pollable.ready", pollable))
    seen.append(len(await guest.do("forward-pass-result.get-tokens", result)))
    seen.append(await guest.do("forward-pass-result.get-tokens", result))
    seen += [await guest.do("forward-pass-result.get-distributions", result) for _ in range(2)]
    return seen


@case(returns=[None, 2, [], []])
async def distributions_are_taken_once(guest: Guest) -> Any:
    """Contract F6, X5."""
    queue, pages = await begin(guest)
    built = await guest.a_pass(queue, [65, 66], pages, 2)
    await guest.do("output-distributions", built, [1, 0], 1.0, 4)
    result = await guest.do("forward-pass.execute", built)
    seen: list[Any] = [await guest.do("forward-pass-result.get-distributions", result)]
    await guest.wait("forward-pass-result", result)
    seen.append(len(await guest.do("forward-pass-result.get-distributions", result)))
    seen.append(await guest.do("forward-pass-result.get-distributions", result))
    return [*seen, await guest.do("forward-pass-result.get-tokens", result)]


@case(returns=[[32, 258, 1, 0], [0.5, 0.25, 0.125], True])
async def distributions_have_the_size_that_was_asked(guest: Guest) -> Any:
    """Contract S2: 32 if none, at most the vocabulary; zero gives an empty pair."""
    queue, pages = await begin(guest)
    built = await guest.a_pass(queue, [65], pages, 1)
    for top_k in (None, 1000, 1, 0):
        await guest.do("output-distributions", built, [0], 1.0, top_k)
    result = await guest.run(built)
    found = await guest.do("forward-pass-result.get-distributions", result)
    ids, probabilities = found[0]
    return [
        [len(each) for each, _ in found],
        list(probabilities[:3]),
        list(ids) == list(found[1][0][:32]),
    ]


@case(returns=[None, None])
async def pass_without_results_executes_to_none(guest: Guest) -> Any:
    """Contract F5, K1: no token or distribution slots; nothing at all does nothing."""
    queue, pages = await begin(guest)
    (slot,) = await guest.do("allocate-resources", queue, SLOT, 1)
    built = await guest.a_pass(queue, [65], pages, 1)
    await guest.do("output-embeddings", built, [slot], [0])
    empty = await guest.do("create-forward-pass", queue)
    return [
        await guest.do("forward-pass.execute", built),
        await guest.do("forward-pass.execute", empty),
    ]


@case(returns=[True, True, True])
async def every_sampler_of_one_choice_is_the_most_probable(guest: Guest) -> Any:
    """Contract S1: temperature 0, top-p <= 0 and min-p > 1 are all argmax."""
    queue, pages = await begin(guest)
    built = await guest.a_pass(queue, [65], pages, 1)
    await guest.do("output-distributions", built, [0], 1.0, 1)
    await guest.do("output-tokens", built, [0], 0.0)
    await guest.do("output-tokens-top-k", built, [0], 0.0, 5)
    await guest.do("output-tokens-top-p", built, [0], 1.0, 0.0)
    await guest.do("output-tokens-min-p", built, [0], 1.0, 1.5)
    await guest.do("output-tokens-top-k-top-p", built, [0], 1.0, 3, -1.0)
    result = await guest.run(built)
    ((best, _),) = await guest.do("forward-pass-result.get-distributions", result)
    tokens = list(await guest.do("forward-pass-result.get-tokens", result))
    return [len(tokens) == 5, set(tokens) == set(best), best[0] in LETTERS]


@case(returns=[7, True, True])
async def samplers_draw_in_slot_order(guest: Guest) -> Any:
    """Contract S3, F6: a slot's uniform is its number's, so the same program draws the same."""
    _, pages = await begin(guest)
    drawn = []
    for _ in range(2):
        own = await guest.queue()
        built = await guest.a_pass(own, [65], pages, 1)
        await guest.do("output-tokens", built, [0, 0], 1.0)
        await guest.do("output-tokens-top-k", built, [0], 1.0, 5)
        await guest.do("output-tokens-top-p", built, [0], 1.0, 0.9)
        await guest.do("output-tokens-min-p", built, [0], 1.0, 0.1)
        await guest.do("output-tokens-top-k-top-p", built, [0, 0], 1.0, 5, 0.9)
        result = await guest.run(built)
        drawn.append(list(await guest.do("forward-pass-result.get-tokens", result)))
    return [len(drawn[0]), drawn[0] != drawn[1], set(drawn[0]) <= set(LETTERS)]


@case(returns="utrhp")
async def greedy_decoding(guest: Guest) -> Any:
    """Contract S4, S1: one token per pass, the same whatever the guest is made of."""
    queue, pages = await begin(guest)
    text, token = "", 65
    for length in range(1, 6):
        built = await guest.a_pass(queue, [token], pages, length)
        await guest.do("output-tokens", built, [0], 0.0)
        (token,) = await guest.do("forward-pass-result.get-tokens", await guest.run(built))
        text += chr(token)
    return text


@case(returns=[True, False, True])
async def masked_slots_are_as_if_they_were_not_there(guest: Guest) -> Any:
    """Contract M1, M2, K3: masked out equals removed, given the same positions."""
    queue, (one, two, three) = await begin(guest, 3)
    built = await guest.a_pass(queue, [65, 66, 67, 68], [one], 4)
    await guest.do("attention-mask", built, [[1], [2], [1, 1, 1], [1, 1, 2]])
    masked = await guest.last_of(built, 3)
    await guest.fed(queue, [65], [two], 1)
    built = await guest.a_pass(queue, [67, 68], [two], 3, first=2)
    removed = await guest.last_of(built, 1)
    causal = await guest.fed(queue, [65, 66, 67, 68], [three], 4)
    # Decoding on, one token at a time, a row of its own still hides the slot.
    built = await guest.a_pass(queue, [69], [one], 5)
    await guest.do("attention-mask", built, [[1, 1, 3]])
    decoded = await guest.last_of(built, 0)
    built = await guest.a_pass(queue, [69], [two], 4, first=4)
    return [masked == removed, masked == causal, decoded == await guest.last_of(built, 0)]


@case(returns=[True, True])
async def mask_that_hides_nothing_is_causal(guest: Guest) -> Any:
    """Contract M1: runs of no length are legal."""
    queue, (one, two) = await begin(guest, 2)
    plain = await guest.fed(queue, [65, 66, 67], [one], 3)
    built = await guest.a_pass(queue, [65, 66, 67], [two], 3)
    await guest.do("attention-mask", built, [[1], [0, 0, 2], [1, 0, 2]])
    masked = await guest.last_of(built, 2)
    return [masked == plain, masked[0] in LETTERS]


@case(returns=True)
async def row_that_hides_everything_is_no_error(guest: Guest) -> Any:
    """Contract M3."""
    queue, pages = await begin(guest)
    built = await guest.a_pass(queue, [65, 66], pages, 2)
    await guest.do("attention-mask", built, [[1], [0, 2]])
    return (await guest.last_of(built, 1))[0] in LETTERS


@case(returns=[True, True])
async def mask_and_pages_replace_outputs_and_inputs_append(guest: Guest) -> Any:
    """Contract F1, F3: also outputs may come before the inputs they name."""
    queue, (one, two) = await begin(guest, 2)
    expected = await guest.fed(queue, [65, 66, 67], [one], 3)
    built = await guest.do("create-forward-pass", queue)
    await guest.do("output-distributions", built, [2], 1.0, 3)
    await guest.do("kv-cache", built, [one, two], 7)
    await guest.do("attention-mask", built, [[99]])
    await guest.do("input-tokens", built, [65], [0])
    await guest.do("input-tokens", built, [66, 67], [1, 2])
    await guest.do("kv-cache", built, [two], 3)
    await guest.do("attention-mask", built, [[1], [2], [3]])
    result = await guest.run(built)
    ((ids, _),) = await guest.do("forward-pass-result.get-distributions", result)
    return [list(ids) == expected, await guest.fed(queue, [67], [two], 3) == expected]


@case(returns=[True, True, False])
async def embeddings_feed_a_later_pass(guest: Guest) -> Any:
    """Contract F4, F1: mixed with tokens in call order; the slot keeps what it holds."""
    queue, (one, two, three, four) = await begin(guest, 4)
    slots = list(await guest.do("allocate-resources", queue, SLOT, 3))
    built = await guest.a_pass(queue, [65, 66], [one], 2)
    await guest.do("output-embeddings", built, slots[:2], [0, 1])
    await guest.do("output-embeddings", built, slots[2:], [1])
    await guest.do("forward-pass.execute", built)

    async def mixed(page: int, slot: int) -> list[int]:
        built = await guest.do("create-forward-pass", queue)
        await guest.do("input-tokens", built, [70], [0])
        await guest.do("input-embeddings", built, [slot, slot], [1, 2])
        await guest.do("input-tokens", built, [71], [3])
        await guest.do("kv-cache", built, [page], 4)
        return (await guest.tops(built, [1, 2, 3]))[2]

    first = await mixed(two, slots[1])
    return [
        first == await mixed(three, slots[1]),
        first == await mixed(four, slots[2]),
        first == await mixed(four, slots[0]),
    ]


@case(returns=[True, False])
async def rewinding_is_giving_a_smaller_length(guest: Guest) -> Any:
    """Contract K4: slots past the length are dead until overwritten."""
    queue, (one, two) = await begin(guest, 2)
    await guest.fed(queue, [65, 66, 90, 91], [one], 4)
    rewound = await guest.fed(queue, [67], [one], 3)
    await guest.fed(queue, [65, 66], [two], 2)
    plain = await guest.fed(queue, [67], [two], 3)
    await guest.fed(queue, [65, 90], [two], 2)
    return [rewound == plain, await guest.fed(queue, [67], [two], 3) == plain]


@case(step_tokens=16, returns=[True, True])
async def long_pass_is_the_sum_of_its_chunks(guest: Guest) -> Any:
    """Contract F2, S4: how a pass is split over steps is invisible."""
    queue, pages = await begin(guest, 8)
    tokens = [65 + index % 26 for index in range(60)]
    whole = await guest.fed(queue, tokens, pages[:4], 60)
    for index in range(0, 60, 7):
        piece = tokens[index : index + 7]
        chunked = await guest.fed(queue, piece, pages[4:], index + len(piece))
    return [whole == chunked, whole == await guest.fed(queue, tokens[-1:], pages[:4], 60)]


@case(returns=[True, True])
async def later_pass_sees_what_an_earlier_one_writes(guest: Guest) -> Any:
    """Contract Q1, K5: on whichever queue, and nothing is awaited in between."""
    queue, (one, two) = await begin(guest, 2)
    await guest.fed(queue, [65, 66, 67], [one], 3)
    expected = await guest.fed(queue, [68], [one], 4)
    other, third = await guest.queue(), await guest.queue()
    await guest.do("queue.set-priority", third, "high")
    await guest.do("forward-pass.execute", await guest.a_pass(queue, [65], [two], 1))
    await guest.do("forward-pass.execute", await guest.a_pass(other, [66, 67], [two], 3))
    built = await guest.a_pass(third, [68], [two], 4)
    return [await guest.last_of(built, 0) == expected, await guest.settled(other)]


@case(returns=True)
async def page_may_be_read_twice(guest: Guest) -> Any:
    """Contract K2: listed twice before the page that is written."""
    queue, (one, two) = await begin(guest, 2)
    await guest.fed(queue, [65] * 16, [one], 16)
    return (await guest.fed(queue, [66], [one, one, two], 33))[0] in LETTERS


@case(limits={"max_passes_in_flight": 2}, returns=6)
async def more_passes_than_may_be_in_flight_wait(guest: Guest) -> Any:
    """Contract F5: `execute` suspends until there is room."""
    queue, pages = await begin(guest, 6)
    results = []
    for page in pages:
        built = await guest.a_pass(queue, [65], [page], 1)
        await guest.do("output-tokens", built, [0], 0.0)
        results.append(await guest.do("forward-pass.execute", built))
    early = await guest.do("forward-pass-result.get-tokens", results[0])
    assert early is not None, "the first had to be done before the last was submitted"
    for result in results:
        await guest.wait("forward-pass-result", result)
    return len(results)
