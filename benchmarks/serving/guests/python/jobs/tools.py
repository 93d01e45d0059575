"""An agent that calls a tool again and again: its pages stay where they are while it waits."""

from __future__ import annotations

from typing import Any

import inferlet


async def run(spec: dict[str, Any]) -> str:
    """All that was generated, after `calls` calls: each a message to the client, and its answer.

    While a call is under way, what will stand before its answer is computed.
    """
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.fill(spec["prompt"])
    said = ""
    for _ in range(spec["calls"]):
        call = await context.generate(
            max_tokens=spec["tokens"], sampler=inferlet.Greedy(), ignore_eos=True
        )
        said += call.text
        await inferlet.send(call.text)
        await context.fill(spec["before"])
        await context.flush()
        await context.fill(await inferlet.receive() + spec["after"])
    last = await context.generate(
        max_tokens=spec["tokens"], sampler=inferlet.Greedy(), ignore_eos=True
    )
    return said + last.text
