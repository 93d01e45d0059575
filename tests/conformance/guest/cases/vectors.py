"""The test vectors of the contract: mask rows, slots, a draft tree, the order of results."""

from __future__ import annotations

from typing import Any

from .case import PAGE, Guest, case
from .forward import begin

TOKENS = [65, 66, 67, 68, 69]


async def _seen(guest: Guest, row: list[int]) -> list[int]:
    """Of six slots, the ones that `row` of the last one lets it see.

    A slot is seen if other content in it changes what comes out.
    """
    queue, (page,) = await begin(guest)
    slots = list(await guest.do("allocate-resources", queue, 1, 1))

    async def vector(tokens: list[int]) -> float:
        for index, token in enumerate(tokens[:5]):
            built = await guest.a_pass(queue, [token], [page], index + 1)
            await guest.do("attention-mask", built, [[0, index, 1]])
            await guest.do("forward-pass.execute", built)
        built = await guest.a_pass(queue, tokens[5:], [page], 6)
        await guest.do("attention-mask", built, [row])
        await guest.do("output-embeddings", built, slots, [0])
        await guest.do("forward-pass.execute", built)
        result = await guest.do("read-embeddings", queue, slots)
        await guest.wait("embedding-result", result)
        ((number, *_),) = await guest.do("embedding-result.get", result)
        return float(number)

    plain = [*TOKENS, 70]
    usual = await vector(plain)
    changed = [[*plain[:i], 90, *plain[i + 1 :]] for i in range(6)]
    return [i for i, tokens in enumerate(changed) if await vector(tokens) != usual]


@case(returns=[[0, 1, 2, 3, 4, 5], [0, 3, 4, 5], [2, 3, 4, 5], [5]])
async def mask_rows(guest: Guest) -> Any:
    """Contract M1: causal, slots 1 and 2 hidden, 0 and 1 hidden, only itself."""
    rows = [[6], [1, 2, 3], [0, 2, 4], [0, 5, 1]]
    return [await _seen(guest, row) for row in rows]


@case(traps="execute: row 0 of the mask covers 3 slots, input 0 sees 6 (M1)")
async def short_mask_row(guest: Guest) -> Any:
    """Contract M1."""
    await _seen(guest, [3])


@case(traps="execute: row 0 of the mask covers 9 slots, input 0 sees 6 (M1)")
async def long_mask_row(guest: Guest) -> Any:
    """Contract M1."""
    await _seen(guest, [9])


SLOTS = [(1, 5, 5), (1, 6, 1), (1, 16, 10), (2, 1, 1), (3, 4, 20), (2, 16, 32)]
"""Pages, last-kv-page-len, inputs."""


@case(returns=[True] * len(SLOTS))
async def slots_written(guest: Guest) -> Any:
    """Contract K1, K2: the inputs go to the last slots of the listed pages, in list order."""
    queue = await guest.queue()

    async def right(pages: int, last: int, inputs: int) -> bool:
        held = list(await guest.do("allocate-resources", queue, PAGE, 2 * pages))
        length = 16 * (pages - 1) + last
        tokens = [65 + index % 26 for index in range(length)]
        answers = []
        for mine, cuts in ((held[:pages], (length - inputs, length)), (held[pages:], (length,))):
            start = 0
            for end in cuts:
                if end > start:
                    top = await guest.fed(queue, tokens[start:end], mine, end)
                start = end
            answers.append(top)
        return answers[0] == answers[1]

    return [await right(*each) for each in SLOTS]


@case(traps="execute: 1 pages with last-kv-page-len 4 hold 4 tokens, the pass has 5 inputs (K1)")
async def slots_missing(guest: Guest) -> Any:
    """Contract K1."""
    queue, pages = await begin(guest)
    built = await guest.a_pass(queue, TOKENS, pages, 5)
    await guest.do("kv-cache", built, pages, 4)
    await guest.do("forward-pass.execute", built)


@case(returns=[True, True])
async def middle_page_dropped(guest: Guest) -> Any:
    """Contract K3, K4: positions go on from the old maximum, the slots are sixteen less."""
    queue, (a, b, c, d, e) = await begin(guest, 5)
    letters = [65 + index % 26 for index in range(40)]
    await guest.fed(queue, letters[:16], [a], 16)
    for start, page in ((16, b), (32, c)):
        size = min(16, 40 - start)
        built = await guest.a_pass(queue, letters[start : start + size], [page], size, first=start)
        await guest.do("forward-pass.execute", built)
    built = await guest.a_pass(queue, [90], [a, c], 25, first=40)
    await guest.do("attention-mask", built, [[25]])
    dropped = await guest.last_of(built, 0)
    await guest.fed(queue, letters[:16], [d], 16)
    built = await guest.a_pass(queue, letters[32:], [e], 8, first=32)
    await guest.do("forward-pass.execute", built)
    built = await guest.a_pass(queue, [90], [d, e], 25, first=40)
    return [dropped == await guest.last_of(built, 0), b == 1]


@case(returns=[True] * 6)
async def draft_tree(guest: Guest) -> Any:
    """Contract K3, K4, M1, F3: each node of the tree sees its own path, as plain decoding does.

    Then the path that was accepted is sent again, over the drafts.
    """
    queue, (tree, plain) = await begin(guest, 2)
    prefix = [65 + index for index in range(10)]
    await guest.fed(queue, prefix, [tree], 10)
    built = await guest.do("create-forward-pass", queue)
    await guest.do("input-tokens", built, [88, 97, 98, 99, 100], [10, 11, 12, 12, 11])
    await guest.do("kv-cache", built, [tree], 15)
    await guest.do("attention-mask", built, [[11], [12], [13], [12, 1, 1], [11, 3, 1]])
    found = await guest.tops(built, [0, 1, 2, 3, 4])
    await guest.fed(queue, prefix, [plain], 10)
    paths = [[88], [88, 97], [88, 97, 98], [88, 97, 99], [88, 100]]
    same = [
        await guest.fed(queue, path, [plain], 10 + len(path)) == top
        for path, top in zip(paths, found, strict=True)
    ]
    accepted = await guest.fed(queue, [97, 99, 101], [tree], 14)
    return [*same, accepted == await guest.fed(queue, [88, 97, 99, 101], [plain], 14)]


@case(returns=[True, True, True, True])
async def output_order(guest: Guest) -> Any:
    """Contract F6, F3: each kind in the order its slots were added; kinds may be mixed."""
    queue, (one, two) = await begin(guest, 2)
    tops = await guest.tops(await guest.a_pass(queue, [70, 75, 80], [one], 3), [0, 1, 2])
    built = await guest.a_pass(queue, [70, 75, 80], [two], 3)
    await guest.do("output-tokens", built, [2], 0.0)
    await guest.do("output-distributions", built, [0, 1], 1.0, None)
    await guest.do("output-tokens-top-k", built, [1, 2], 0.0, 5)
    result = await guest.run(built)
    tokens = list(await guest.do("forward-pass-result.get-tokens", result))
    found = await guest.do("forward-pass-result.get-distributions", result)
    return [
        tokens == [tops[2][0], tops[1][0], tops[2][0]],
        [list(ids[:3]) for ids, _ in found] == tops[:2],
        [len(ids) for ids, _ in found] == [32, 32],
        len({tuple(top) for top in tops}) == 3,
    ]
