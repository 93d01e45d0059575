"""An agent with one tool: it asks its client for the weather when the model wants to know it."""

from __future__ import annotations

import re

import inferlet

SYSTEM = (
    "You answer questions about the weather. To look it up say: CALL weather CITY. "
    "You are told: RESULT and what it is like there."
)
CALL = re.compile(r"CALL weather (.+)")
MAX_CALLS = 3


async def main(args: list[str]) -> str:
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.system(SYSTEM)
    await context.user(" ".join(args))
    for _ in range(MAX_CALLS):
        reply = (await context.generate(max_tokens=200, sampler=inferlet.Greedy())).text
        call = CALL.match(reply)
        if call is None:
            return reply
        await inferlet.send(call[1])
        await context.user(f"RESULT {await inferlet.receive()}")
    raise inferlet.Failure(f"the model asked {MAX_CALLS} times and did not answer")
