"""Many questions about one long text: its pages are computed once and shared by all."""

from __future__ import annotations

from typing import Any

import inferlet


async def run(spec: dict[str, Any]) -> list[str]:
    """The answer to each of the `questions`, in order."""
    root = await inferlet.Context.create(await inferlet.get_model())
    await root.fill(spec["prefix"])
    await root.flush()
    return list(await inferlet.gather(*(_ask(root, each, spec) for each in spec["questions"])))


async def _ask(root: inferlet.Context, question: str, spec: dict[str, Any]) -> str:
    context = await root.fork()
    await context.fill(question)
    answer = await context.generate(
        max_tokens=spec["tokens"], sampler=inferlet.Greedy(), ignore_eos=True
    )
    return answer.text
