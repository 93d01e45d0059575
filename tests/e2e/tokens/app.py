"""Answers a chat message with the ids of its prompt and of what was generated, as JSON.

Arguments: the message, the number of tokens, the temperature.
"""

from __future__ import annotations

import json

import inferlet


async def main(args: list[str]) -> str:
    message, count, temperature = args
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.user(message)
    generation = await context.generate(
        max_tokens=int(count), sampler=inferlet.Multinomial(float(temperature)), ignore_eos=True
    )
    prompt = context.tokens[: len(context.tokens) - len(generation.tokens)]
    return json.dumps({"prompt": prompt, "output": generation.tokens})
