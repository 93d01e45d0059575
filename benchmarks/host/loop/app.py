"""Decodes greedily: the Python form of `loop.wat`, also run natively.

Arguments: the number of tokens (0 returns at once), the tokens of context to begin with, and 1 to
wait for a message before the first pass, 2 to wait after it, 0 not to wait. With `generate` as a
fourth one the tokens after the first are generated in one call, with `stream` each is sent as it
comes; else a pass is made for each.
"""

from __future__ import annotations

import inferlet


async def main(args: list[str]) -> str:
    tokens, length, wait = map(int, args[:3])
    if tokens == 0:
        return ""
    model = await inferlet.get_model()
    if wait == 1:
        await inferlet.receive()
    context = await inferlet.Context.create(model)
    context.fill_tokens([65] * length)
    context.fill_tokens([await context.step(inferlet.Greedy())])
    if wait == 2:
        await inferlet.receive()
    how = args[3] if args[3:] else "step"
    if how == "step":
        for _ in range(tokens - 1):
            context.fill_tokens([await context.step(inferlet.Greedy())])
    else:
        generation = context.stream(
            max_tokens=tokens - 1, sampler=inferlet.Greedy(), ignore_eos=True
        )
        if how == "generate":
            await generation.finish()
        async for piece in generation:
            await inferlet.send(piece)
    return bytes(context.tokens[length:]).decode()
