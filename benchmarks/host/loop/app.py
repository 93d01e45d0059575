"""Decodes greedily, one pass per token: the Python form of `loop.wat`, also run natively.

Arguments: the number of tokens (0 returns at once), the tokens of context to begin with, and 1 to
wait for a message before the first pass.
"""

from __future__ import annotations

import inferlet


async def main(args: list[str]) -> str:
    tokens, length, wait = map(int, args)
    if tokens == 0:
        return ""
    context = await inferlet.Context.create(await inferlet.get_model())
    if wait:
        await inferlet.receive()
    context.fill_tokens([65] * length)
    for _ in range(tokens):
        context.fill_tokens([await context.step(inferlet.Greedy())])
    return bytes(context.tokens[length:]).decode()
